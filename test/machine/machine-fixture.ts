import { createHash } from 'node:crypto';
import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as breathe } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import { pino, type Logger } from 'pino';
import type { MachineClass } from '../../src/core/resources.ts';
import { MachineHost, type MachineBase } from '../../src/machine/machine-host.ts';
import { MachineTemplates } from '../../src/machine/machine-templates.ts';
import type { SandboxConfig } from '../../src/wire/shim.ts';

export const MIB = 1024 * 1024;

/** What the tests' machines are made of: small files, and a program that says a version as QEMU does. */
export interface MachineFixture {
  readonly directory: string;
  readonly templatesDirectory: string;
  readonly machine: MachineHost;
  readonly base: MachineBase;
  readonly shimPath: string;
  readonly logger: Logger;
  /** What was logged. */
  readonly logged: readonly { msg: string; delayMs?: number; err?: { message: string } }[];
  /** Configurations that machines were saved with. */
  readonly made: readonly SandboxConfig[];
  /** Saves machines as `make` does: by default two files with content of their own. */
  openTemplates(make?: (config: SandboxConfig, signal: AbortSignal) => Promise<void>): MachineTemplates;
}

export async function makeMachineFixture(t: ExecutionContext): Promise<MachineFixture> {
  const directory = await mkdtemp(join(tmpdir(), 'bulkhead-machines-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const file = async (name: string): Promise<string> => {
    const path = join(directory, name);
    await writeFile(path, `content of ${name}`);
    return path;
  };
  const qemuPath = await file('qemu');
  await writeFile(qemuPath, '#!/bin/sh\necho QEMU emulator version 7.2.0\n');
  await chmod(qemuPath, 0o755);
  const files = {
    kernelPath: await file('kernel'),
    initramfsPath: await file('initramfs'),
    scratchTemplatePath: await file('scratch'),
    warmUpPath: await file('warm-up'),
  };
  const machine = await MachineHost.open('tcg', files, { scope: directory, kernelArguments: [] });
  const base: MachineBase = { ...machine.config(), qemuPath };
  machine.config = () => base;
  const shimPath = await file('shim');
  const logged: { msg: string }[] = [];
  const logger = pino({}, { write: (line: string) => void logged.push(JSON.parse(line) as { msg: string }) });
  const made: SandboxConfig[] = [];
  const templatesDirectory = join(directory, 'templates');
  await mkdir(templatesDirectory);
  return {
    directory,
    templatesDirectory,
    machine,
    base,
    shimPath,
    logger,
    logged,
    made,
    openTemplates: (make = saveMachine) =>
      new MachineTemplates({
        directory: templatesDirectory,
        places: { sandboxesDirectory: join(directory, 's'), interfacePrefix: 'qt' },
        machine,
        shimPath,
        logger,
        make: async (config, signal) => {
          made.push(config);
          await make(config, signal);
        },
      }),
  };
}

/** Content of a saved machine's RAM: no two are the same, all have the same length. */
export const ramOf = (config: SandboxConfig): string => `RAM ${createHash('sha256').update(config.id).digest('hex')}`;

export async function saveMachine(config: SandboxConfig): Promise<void> {
  const template = config.machine?.template;
  if (!template) throw new Error('it is not said where the machine is to be saved');
  await writeFile(template.ramPath, ramOf(config), { flag: 'wx' });
  await writeFile(template.statePath, `state ${config.id}`, { flag: 'wx' });
}

export const sizeOf = (memoryMib: number, vcpus = 1): MachineClass => ({ vcpus, memoryBytes: memoryMib * MIB });

export async function listDirectory(path: string): Promise<string[]> {
  return (await readdir(path).catch(() => [])).sort();
}

/** Asks again until it is so. */
export async function until(what: string, holds: () => boolean | Promise<boolean>, deadlineMs = 10_000): Promise<void> {
  const deadline = performance.now() + deadlineMs;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`not within ${deadlineMs} ms: ${what}`);
    await breathe();
  }
}

/** Something that is waited for until the test says so. */
export function makeGate(): { readonly opened: Promise<void>; open: () => void } {
  const { promise, resolve } = Promise.withResolvers<void>();
  return { opened: promise, open: resolve };
}
