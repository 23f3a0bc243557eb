import { join } from 'node:path';
import type { Logger } from 'pino';
import { within } from '../../core/deadline.ts';
import { newId } from '../../core/ids.ts';
import type { MachineClass } from '../../core/resources.ts';
import type { MachineHost } from '../../machine/machine-host.ts';
import { planMachine, removeRemains, reserveMachine, type SandboxPlaces } from '../../machine/machine-place.ts';
import type { MachineTemplates } from '../../machine/machine-templates.ts';
import { className } from '../../machine/template-key.ts';
import { readAvailableMemory } from '../../platform/memory.ts';
import {
  PROTOCOL_GENERATION,
  type CreateContainer,
  type MachineTemplate,
  type SandboxConfig,
} from '../../wire/shim.ts';
import type { Sandbox, SandboxLauncher } from '../sandbox.ts';
import { PoolFiles, type MachineRecord, type PooledMachine } from './pool-files.ts';

export type { PooledMachine } from './pool-files.ts';

const MIB = 1024 * 1024;
/** A machine that is not warm by then hangs: seen once in some hundred. It is discarded, with its console kept. */
const WARM_DEADLINE_MS = 3_000;
/** After the second round nothing gets quicker (measured: 1 round 54 ms to the first output, 2 rounds 41, 3 rounds 40.5). */
const WARM_UP_ROUNDS = 2;
/** What must stay free of the host's memory beside a machine that is only made in advance. */
const RESERVE_BYTES = 1024 * MIB;
/** Waiting machines of all sizes together get at most this part of the host's memory, counted as if each used all of its own. */
const MEMORY_SHARE = 0.25;
/** Sizes that machines are kept ready for: the default one and those that were wanted last. */
const CLASSES_MAX = 3;
/** After a machine did not come up the next try waits, longer each time. */
const RETRY_FIRST_MS = 1_000;
const RETRY_LAST_MS = 60_000;
const STOP_DEADLINE_MS = 5_000;

/** What a machine runs before it waits; `writablePath` is a scratch disk of its own. */
export type WarmUpPlan = (id: string, writablePath: string) => Promise<CreateContainer>;

/** Machines of one size. */
interface PoolClass {
  readonly size: MachineClass;
  readonly waiting: PooledMachine[];
  /** What was started last, and how many times in a row. */
  lastImage: { readonly image: string; readonly count: number; readonly plan: WarmUpPlan } | undefined;
}

export interface MachinePoolOptions {
  /** Machines that wait, for each size; 0 is none at all. */
  readonly size: number;
  readonly defaultClass: MachineClass;
  /** State of waiting machines: one directory each. */
  readonly directory: string;
  readonly places: SandboxPlaces;
  readonly hostMemoryBytes: number;
  readonly machine: MachineHost;
  readonly templates: MachineTemplates;
  readonly launcher: SandboxLauncher;
  readonly logger: Logger;
  /** For any image. */
  readonly planWarmUp: WarmUpPlan;
  /** Whether machines may be prepared for the image that is started again and again, by running its program in advance. */
  readonly preparesImages: boolean;
}

/**
 * Machines that are made from templates before anybody wants them: warmed up, then stopped, so that they cost memory and no CPU. A machine is given
 * away once and never comes back.
 */
export class MachinePool {
  readonly #options: MachinePoolOptions;
  readonly #files: PoolFiles;
  readonly #ending = new AbortController();
  /** By size, the one that was wanted last at the end. */
  readonly #classes = new Map<string, PoolClass>();
  /** Images that no machine came up with. */
  readonly #unfitImages = new Set<string>();
  /** Machines whose size is not wanted any more are on their way out. */
  #clearing: Promise<unknown> = Promise.resolve();
  /** The one filling that is under way. */
  #filling: Promise<void> | undefined;
  /** The machine that is being prepared for an image. */
  #preparing: { readonly image: string; readonly settled: Promise<void>; isDropped: boolean } | undefined;
  #failures = 0;
  #retry: NodeJS.Timeout | undefined;

  constructor(options: MachinePoolOptions) {
    this.#options = options;
    this.#files = new PoolFiles(options.directory);
    if (options.size > 0) this.#touch(options.defaultClass);
  }

  /**
   * A waiting machine of this size, at once, or undefined; best one that has this image's layers. It is the caller's from now on; `refill` makes
   * another one.
   */
  take(size: MachineClass, image: string): PooledMachine | undefined {
    if (this.#options.size === 0) return undefined;
    const { waiting } = this.#touch(size);
    const fitting = waiting.findIndex((machine) => machine.image === image);
    return waiting.splice(Math.max(0, fitting), 1)[0];
  }

  /** This image was started: a machine is prepared for one that was started twice in a row. */
  noteStart(size: MachineClass, image: string, plan: WarmUpPlan): void {
    if (!this.#options.preparesImages || this.#options.size === 0) return;
    const entry = this.#touch(size);
    const count = entry.lastImage?.image === image ? entry.lastImage.count + 1 : 1;
    entry.lastImage = { image, count, plan };
  }

  /** Images that machines were prepared for, or are being. */
  images(): string[] {
    const prepared = [...this.#classes.values()].flatMap(({ waiting }) => waiting.flatMap(({ image }) => image ?? []));
    return this.#preparing ? [...prepared, this.#preparing.image] : prepared;
  }

  /** The image is deleted: nothing may keep its layers. */
  async dropImage(image: string): Promise<void> {
    this.#unfitImages.delete(image);
    const dropped = [...this.#classes.values()].flatMap((entry) => {
      if (entry.lastImage?.image === image) entry.lastImage = undefined;
      const own = entry.waiting.filter((machine) => machine.image === image);
      for (const machine of own) entry.waiting.splice(entry.waiting.indexOf(machine), 1);
      return own;
    });
    if (this.#preparing?.image === image) {
      this.#preparing.isDropped = true;
      await this.#preparing.settled;
    }
    await Promise.all(dropped.map((machine) => this.discard(machine)));
    if (dropped.length > 0) this.refill();
  }

  /** Makes what is missing, one machine after the other, in the background and with the least priority. */
  refill(): void {
    if (this.#ending.signal.aborted || this.#filling || this.#retry || this.#options.size === 0) return;
    this.#filling = this.#fill().finally(() => {
      this.#filling = undefined;
    });
  }

  /**
   * After the daemon's start: machines that wait are taken up again, those that were on their way or are of other programs are ended.
   * `claimed` are runtime directories that belong to containers.
   */
  async adopt(claimed: ReadonlySet<string>): Promise<void> {
    const { templates, size } = this.#options;
    const names = await this.#files.list();
    if (names.length === 0) return;
    const key = await templates.key().catch(() => '');
    await Promise.all(
      names.map(async (name) => {
        const record = await this.#files.readRecord(name);
        // Without a record no shim was started yet. What a container has is the container's.
        if (!record || claimed.has(record.runtimeDir)) return this.#files.forget(name);
        this.#options.machine.reserveUid(record.uid, record.id);
        const { sandbox, isWaiting } = await this.#find(record);
        const { waiting } = this.#touch(record);
        if (sandbox && isWaiting && record.key === key && waiting.length < size) waiting.push({ ...record, sandbox });
        else await this.#end(record, sandbox);
      }),
    );
  }

  /** How many are to wait for each size. */
  get size(): number {
    return this.#options.size;
  }

  /** How many wait. */
  get waiting(): number {
    return [...this.#classes.values()].reduce((sum, { waiting }) => sum + waiting.length, 0);
  }

  /** Ends a machine that was taken and not used. */
  async discard(machine: PooledMachine): Promise<void> {
    await this.#end(machine, machine.sandbox);
  }

  /** The caller has given the machine to a container: the pool's files of it are not needed any more. */
  async handedOver(machine: PooledMachine): Promise<void> {
    await this.#files.forget(machine.id);
  }

  /** Ends all waiting machines: the daemon is told to end. */
  async close(): Promise<void> {
    this.#ending.abort();
    clearTimeout(this.#retry);
    await Promise.all([this.#filling, this.#clearing]);
    const all = [...this.#classes.values()].flatMap(({ waiting }) => waiting.splice(0));
    await Promise.all(all.map((machine) => this.#end(machine, machine.sandbox)));
  }

  /** Marks a size as wanted, and makes place for it. */
  #touch({ vcpus, memoryBytes }: MachineClass): PoolClass {
    const size = { vcpus, memoryBytes };
    const name = className(size);
    const entry = this.#classes.get(name) ?? { size, waiting: [], lastImage: undefined };
    this.#classes.delete(name);
    this.#classes.set(name, entry);
    const isDefault = (one: string): boolean => one === className(this.#options.defaultClass);
    const surplus = [...this.#classes.keys()].filter((one) => !isDefault(one)).slice(0, -CLASSES_MAX);
    for (const one of surplus) {
      const gone = this.#classes.get(one)?.waiting ?? [];
      this.#classes.delete(one);
      for (const machine of gone) this.#clearing = Promise.all([this.#clearing, this.discard(machine)]);
    }
    return entry;
  }

  async #fill(): Promise<void> {
    for (let next = this.#nextMissing(); next && !this.#ending.signal.aborted; next = this.#nextMissing()) {
      let image: PoolClass['lastImage'];
      try {
        const template = await this.#options.templates.ensure(next.size);
        if (!template || this.#ending.signal.aborted || !(await this.#hasRoomFor(next.size))) return;
        image = this.#imageFor(next);
        const adding = this.#add(next, template, image);
        const settled = adding.catch(() => undefined);
        this.#preparing = image && { image: image.image, settled, isDropped: false };
        await adding;
        this.#failures = 0;
      } catch (error) {
        if (this.#ending.signal.aborted) return;
        if (image) {
          if (this.#preparing?.isDropped) continue;
          // Its program may be at fault: a machine for any image is tried at once.
          this.#options.logger.warn({ err: error, image: image.image }, 'no machine could be prepared for an image');
          this.#unfitImages.add(image.image);
          continue;
        }
        this.#failures += 1;
        const delayMs = Math.min(RETRY_FIRST_MS * 2 ** (this.#failures - 1), RETRY_LAST_MS);
        this.#options.logger.warn({ err: error, delayMs }, 'a machine that was to wait did not come up');
        if (this.#ending.signal.aborted) return;
        this.#retry = setTimeout(() => {
          this.#retry = undefined;
          this.refill();
        }, delayMs);
        this.#retry.unref();
        return;
      } finally {
        this.#preparing = undefined;
      }
    }
  }

  /** Makes a machine, and lets it wait unless nobody wants it by then: its size and the image that it was prepared for may be gone. */
  async #add(entry: PoolClass, template: MachineTemplate, image: PoolClass['lastImage']): Promise<void> {
    const machine = await this.#make(entry.size, template, image);
    const isWanted = this.#classes.get(className(entry.size)) === entry && !this.#preparing?.isDropped;
    if (isWanted) entry.waiting.push(machine);
    else await this.discard(machine);
  }

  #imageFor({ lastImage, waiting }: PoolClass): PoolClass['lastImage'] {
    if (!lastImage || lastImage.count < 2 || this.#unfitImages.has(lastImage.image)) return undefined;
    return waiting.some(({ image }) => image === lastImage.image) ? undefined : lastImage;
  }

  #nextMissing(): PoolClass | undefined {
    return [...this.#classes.values()].reverse().find(({ waiting }) => waiting.length < this.#options.size);
  }

  async #hasRoomFor({ memoryBytes }: MachineClass): Promise<boolean> {
    const all = [...this.#classes.values()];
    const held = all.reduce((sum, { size, waiting }) => sum + size.memoryBytes * waiting.length, 0);
    if (held + memoryBytes > this.#options.hostMemoryBytes * MEMORY_SHARE) return false;
    return (await readAvailableMemory()) > memoryBytes + RESERVE_BYTES;
  }

  async #make(size: MachineClass, template: MachineTemplate, image: PoolClass['lastImage']): Promise<PooledMachine> {
    const { places, machine, templates, launcher } = this.#options;
    const id = newId();
    const record: MachineRecord = {
      id,
      ...(image ? { image: image.image } : {}),
      key: await templates.key(),
      ...size,
      ...reserveMachine(machine, id, places),
    };
    const stateDir = this.#files.directoryOf(id);
    try {
      await this.#files.writeRecord(record);
      const config: SandboxConfig = {
        generation: PROTOCOL_GENERATION,
        id,
        runtimeDir: record.runtimeDir,
        stateDir,
        hostname: '',
        ports: [],
        pool: {
          warmUp: await (image?.plan ?? this.#options.planWarmUp)(id, join(stateDir, 'scratch.img')),
          rounds: WARM_UP_ROUNDS,
          keepLayers: image !== undefined,
          deadlineMs: WARM_DEADLINE_MS,
        },
        wall: 'vm',
        machine: planMachine(machine.config(), size, record, template),
      };
      return { ...record, sandbox: await launcher.launch(config, this.#ending.signal) };
    } catch (error) {
      await this.#files.keepConsole(id);
      await this.#end(record, undefined);
      throw error;
    }
  }

  /** The machine's sandbox if its shim answers. */
  async #find(record: MachineRecord): Promise<{ sandbox: Sandbox | undefined; isWaiting: boolean }> {
    try {
      const adopting = this.#options.launcher.adopt(record.id, record.runtimeDir);
      const sandbox = await within(adopting, STOP_DEADLINE_MS, 'its shim does not answer');
      const status = await sandbox?.status();
      return { sandbox, isWaiting: status?.state === 'waiting' };
    } catch (error) {
      this.#options.logger.warn({ err: error, machine: record.id }, 'cannot take up a waiting machine again');
      return { sandbox: undefined, isWaiting: false };
    }
  }

  async #end(record: MachineRecord, sandbox: Sandbox | undefined): Promise<void> {
    try {
      await sandbox?.stop(0).catch(() => undefined);
      await sandbox?.release().catch(() => undefined);
      await removeRemains(record);
      this.#options.machine.releaseUid(record.uid);
      await this.#files.forget(record.id);
    } catch (error) {
      this.#options.logger.error({ err: error, machine: record.id }, 'cannot clear away a machine that waited');
    }
  }
}
