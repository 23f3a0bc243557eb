import { createHash } from 'node:crypto';
import { access, constants } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { EngineError } from '../core/errors.ts';
import type { MachineConfig } from '../wire/shim.ts';
import { probeKvm, type KvmProbe } from './kvm/probe.ts';

export type AcceleratorChoice = 'auto' | 'kvm' | 'tcg';

export interface MachineFiles {
  readonly kernelPath: string;
  readonly initramfsPath: string;
  /** Sparse disk image with an empty ext4: every machine's scratch disk starts as a copy of it. */
  readonly scratchTemplatePath: string;
  /** Layer with the program that a pooled machine runs before it waits. */
  readonly warmUpPath: string;
}

/** What a machine is before it knows its container. */
export type MachineBase = Omit<
  MachineConfig,
  'vcpus' | 'memoryBytes' | 'uid' | 'cgroupPath' | 'driver' | 'tapName' | 'template'
>;

/** Users that machine processes run as. Beyond what distributions and user namespaces hand out (subuid starts at 100000). */
const FIRST_UID = 1_900_000_000;
const UID_COUNT = 65_536;

/** What machines on this host are made of, and whether they can be made at all. The choice is made once, by running a guest. */
export class MachineHost {
  readonly accelerator: 'kvm' | 'tcg';
  /** What the probe of /dev/kvm found. */
  readonly kvm: KvmProbe;
  readonly scratchTemplatePath: string;
  readonly warmUpPath: string;
  readonly #config: MachineBase | undefined;
  readonly #problem: string | undefined;
  readonly #uids = new Map<number, string>();
  /** Where the search for a free one begins: apart from that of another daemon on the same host. */
  readonly #firstUid: number;

  private constructor(options: {
    accelerator: 'kvm' | 'tcg';
    kvm: KvmProbe;
    files: MachineFiles;
    qemuPath: string | undefined;
    problem: string | undefined;
    scope: string;
    kernelArguments: readonly string[];
  }) {
    this.#firstUid = createHash('sha256').update(options.scope).digest().readUInt16BE(0);
    this.accelerator = options.accelerator;
    this.kvm = options.kvm;
    this.scratchTemplatePath = options.files.scratchTemplatePath;
    this.warmUpPath = options.files.warmUpPath;
    this.#problem = options.problem;
    this.#config =
      options.qemuPath === undefined
        ? undefined
        : {
            accelerator: options.accelerator,
            qemuPath: options.qemuPath,
            kernelPath: options.files.kernelPath,
            initramfsPath: options.files.initramfsPath,
            kernelArguments: options.kernelArguments,
            cpuModel: options.accelerator === 'kvm' ? 'host' : 'max',
          };
  }

  /** Probes the host; `options.scope` tells daemons on one host apart (the data root). With `kvm` a host that cannot run an unmodified guest is an error that says why. */
  static async open(
    choice: AcceleratorChoice,
    files: MachineFiles,
    options: { readonly scope: string; readonly kernelArguments: readonly string[] },
  ): Promise<MachineHost> {
    const kvm = await probeKvm();
    if (choice === 'kvm' && !kvm.usable) {
      throw new EngineError('unavailable', `--accelerator kvm: ${kvm.message}`, { details: { reason: kvm.reason } });
    }
    const qemuPath = await findProgram('qemu-system-x86_64');
    const problem = await findProblem(qemuPath, files);
    const accelerator = choice === 'tcg' || !kvm.usable ? 'tcg' : 'kvm';
    return new MachineHost({ accelerator, kvm, files, qemuPath, problem, ...options });
  }

  /** Why no machine can be made here, with the remedy; undefined when one can. */
  get problem(): string | undefined {
    return this.#problem;
  }

  assertUsable(): void {
    if (this.#problem) {
      throw new EngineError(
        'unavailable',
        `isolation vm is not possible on this host: ${this.#problem} (or choose --isolation os)`,
      );
    }
  }

  config(): MachineBase {
    this.assertUsable();
    if (!this.#config) throw new EngineError('internal', 'the machine host has no configuration');
    return this.#config;
  }

  /** A user id that no other machine of ours has. */
  allocateUid(owner: string): number {
    for (let step = 0; step < UID_COUNT; step++) {
      const uid = FIRST_UID + ((this.#firstUid + step) % UID_COUNT);
      if (this.#uids.has(uid)) continue;
      this.#uids.set(uid, owner);
      return uid;
    }
    throw new EngineError(
      'resource-exhausted',
      `all ${UID_COUNT} user ids for machines are in use; remove machines first`,
    );
  }

  /** A running machine of an earlier daemon has this id. */
  reserveUid(uid: number, owner: string): void {
    this.#uids.set(uid, owner);
  }

  releaseUid(uid: number): void {
    this.#uids.delete(uid);
  }
}

async function findProblem(qemuPath: string | undefined, files: MachineFiles): Promise<string | undefined> {
  if (qemuPath === undefined)
    return 'the program qemu-system-x86_64 is not installed; install the package qemu-system-x86';
  for (const [what, path] of [
    ['guest kernel', files.kernelPath],
    ['initramfs', files.initramfsPath],
    ['scratch disk template', files.scratchTemplatePath],
    ["warm-up's layer", files.warmUpPath],
  ] as const) {
    if (!(await isReadable(path))) return `the ${what} ${path} is missing; run 'make setup' in the checkout`;
  }
  return undefined;
}

async function findProgram(name: string): Promise<string | undefined> {
  const directories = (process.env['PATH'] ?? '/usr/local/bin:/usr/bin').split(delimiter);
  for (const directory of directories.filter((one) => one.startsWith('/'))) {
    const path = join(directory, name);
    if (await isExecutable(path)) return path;
  }
  return undefined;
}

async function isExecutable(path: string): Promise<boolean> {
  return await access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
}

async function isReadable(path: string): Promise<boolean> {
  return await access(path, constants.R_OK).then(
    () => true,
    () => false,
  );
}
