import { Readable } from 'node:stream';
import { EngineError, toEngineError } from '../core/errors.ts';
import { newId } from '../core/ids.ts';
import type { GuestImages, StoredGuestImage } from '../machine/guest-images/guest-images.ts';
import type {
  GuestAllocationRequest,
  GuestAllocationResult,
  GuestExecResult,
  GuestImageView,
  GuestLaunchRequest,
  GuestView,
} from '../wire/guest.ts';
import type { EngineContext } from './engine-context.ts';
import { allocate } from './guest-allocation.ts';
import { readLog } from './guest-console.ts';
import { GuestHost } from './guest-host.ts';
import { planGuest, sizeOfDisk } from './guest-plan.ts';
import { waitUntilReady } from './guest-readiness.ts';
import type { GuestRecord, GuestTable } from './guest-record.ts';
import { GuestRunner, type RunningGuest } from './guest-runner.ts';
import type { GuestConsole, GuestService, LaunchProgress } from './guest-service.ts';
import { viewGuest } from './guest-view.ts';
import { KeyedLock } from './keyed-lock.ts';

const DEFAULT_STOP_SECONDS = 60;
/** Emulated, a distribution's first boot takes about a minute. */
const DEFAULT_READY_SECONDS = 300;
export type GuestsContext = Pick<
  EngineContext,
  'machine' | 'network' | 'clock' | 'logger' | 'host' | 'dataRoot' | 'execRoot' | 'interfacePrefix'
>;

export class Guests implements GuestService {
  readonly #context: GuestsContext;
  readonly #table: GuestTable;
  readonly #images: GuestImages;
  readonly #host: GuestHost;
  readonly #runner: GuestRunner;
  readonly #locks = new KeyedLock();

  constructor(context: GuestsContext, table: GuestTable, images: GuestImages) {
    this.#context = context;
    this.#table = table;
    this.#images = images;
    this.#host = new GuestHost(context);
    this.#runner = new GuestRunner(context, table, this.#host);
  }

  /** After the daemon's start, before it listens. */
  async reconcile(): Promise<void> {
    for (const record of this.#table.all()) {
      try {
        await this.#runner.reconcile(record);
      } catch (error) {
        // One guest must not keep the daemon from starting. It can still be ended by force.
        this.#context.logger.error({ err: error, guest: record.name }, 'cannot take up a guest');
        this.#table.update({
          ...record,
          reason: `the daemon cannot reach its machine: ${toEngineError(error).message}`,
        });
      }
    }
  }

  /** Once the daemon listens. A guest that does not start is told in the log and by its state. */
  async startAutomatic(): Promise<void> {
    for (const { id, name, autostart, isStoppedOnPurpose, state } of this.#table.all()) {
      if (autostart !== true || isStoppedOnPurpose === true || state !== 'stopped') continue;
      await this.start(id).catch((error: unknown) => {
        this.#context.logger.error({ err: error, guest: name }, 'cannot start a guest');
      });
    }
  }

  hasRunning(): boolean {
    return this.#runner.hasRunning();
  }

  detach(): void {
    this.#runner.detach();
  }

  async stopAll(timeoutSeconds: number): Promise<void> {
    const running = this.#table.all().filter(({ state }) => state === 'running');
    await Promise.all(
      running.map(async ({ id, name }) => {
        try {
          await this.stop(id, { force: false, timeoutSeconds });
        } catch (error) {
          this.#context.logger.warn({ err: error, guest: name }, 'a guest did not stop in time and is killed');
          await this.stop(id, { force: true, timeoutSeconds: undefined });
        }
      }),
    );
  }

  async launch(request: GuestLaunchRequest, onProgress: LaunchProgress, signal: AbortSignal): Promise<GuestView> {
    const plan = await planGuest(request, {
      host: this.#context.host,
      accelerator: this.#context.machine.accelerator,
      isTaken: (name) => this.#table.isNameTaken(name),
    });
    const image = await this.#images.ensure(request.image, (text) => onProgress('image', text));
    const diskBytes = sizeOfDisk(request, image);
    signal.throwIfAborted();
    const id = newId();
    const record: GuestRecord = {
      id,
      ...plan,
      image: image.name,
      imagePath: image.path,
      createdAtMs: this.#context.clock.nowMs(),
      state: 'creating',
      reason: '',
      diskBytes,
      autostart: request.autostart ?? false,
      ...(request.network === 'none' ? {} : { network: this.#host.reserveNetwork(id) }),
    };
    await this.#locks.run(id, async () => {
      try {
        this.#table.insert(record);
        onProgress('disk', `disk of ${Math.round(diskBytes / 1024 ** 2)} MiB on ${image.name}`);
        await this.#host.makeFiles(record, request.userData, signal);
        signal.throwIfAborted();
        const how = this.#context.machine.accelerator === 'tcg' ? 'software emulation' : 'KVM';
        onProgress('start', `${record.name}: ${record.vcpus} vCPUs, ${record.memoryBytes / 1024 ** 2} MiB, ${how}`);
        await this.#runner.start(record);
        signal.throwIfAborted();
      } catch (error) {
        await this.#undo(record);
        throw toEngineError(error);
      }
    });
    if (request.wait === false) return this.inspect(id);
    try {
      await this.#waitUntilReady(id, request.timeoutSeconds ?? DEFAULT_READY_SECONDS, onProgress, signal);
    } catch (error) {
      // The user went away before it was usable: nothing half-made stays. Whoever still looks keeps it, to see what is wrong.
      if (signal.aborted) await this.#locks.run(id, () => this.#undo(record));
      throw error;
    }
    return this.inspect(id);
  }

  list(): GuestView[] {
    return this.#table.all().map((record) => this.#view(record));
  }

  inspect(nameOrId: string): GuestView {
    return this.#view(this.#table.find(nameOrId));
  }

  async start(nameOrId: string): Promise<GuestView> {
    const { id } = this.#table.find(nameOrId);
    return await this.#locks.run(id, async () => {
      const record = this.#table.find(id);
      if (record.state !== 'stopped')
        throw new EngineError('wrong-state', `guest ${record.name} is ${record.state} already`);
      await this.#runner.start(record);
      return this.inspect(id);
    });
  }

  async stop(nameOrId: string, options: { force: boolean; timeoutSeconds: number | undefined }): Promise<GuestView> {
    const { id } = this.#table.find(nameOrId);
    if (options.force) {
      // Not in turn: whoever waits for a guest to shut down must not keep it from being killed.
      const { name, state } = this.#table.find(id);
      if (state === 'stopped') throw new EngineError('wrong-state', `guest ${name} is stopped already`);
      await this.#runner.kill(id);
      return this.inspect(id);
    }
    return await this.#locks.run(id, async () => {
      const guest = this.#running(id, 'stopped');
      const seconds = options.timeoutSeconds ?? DEFAULT_STOP_SECONDS;
      if (!(await guest.machine.powerDown(seconds * 1000))) {
        const { name } = this.#table.find(id);
        throw new EngineError(
          'timed-out',
          `guest ${name} has not shut down within ${seconds} s and runs on; look at it with: bulkhead vm console ${name}, or end it with: bulkhead vm stop --force ${name}`,
        );
      }
      await guest.settled;
      return this.inspect(id);
    });
  }

  async restart(nameOrId: string, options: { force: boolean; timeoutSeconds: number | undefined }): Promise<GuestView> {
    const { id } = this.#table.find(nameOrId);
    await this.stop(id, options);
    return await this.start(id);
  }

  async delete(nameOrId: string, options: { force: boolean }): Promise<void> {
    const { id } = this.#table.find(nameOrId);
    await this.#locks.run(id, async () => {
      const record = this.#table.find(id);
      if (record.state !== 'stopped' && !options.force) {
        throw new EngineError(
          'wrong-state',
          `guest ${record.name} is ${record.state}; stop it first: bulkhead vm stop ${record.name}, or delete it with --force`,
        );
      }
      await this.#undo(record);
    });
  }

  async allocate(nameOrId: string, request: GuestAllocationRequest): Promise<GuestAllocationResult> {
    const { id } = this.#table.find(nameOrId);
    return await this.#locks.run(id, async () => {
      const context = {
        table: this.#table,
        host: this.#host,
        hostResources: this.#context.host,
        canHotplugCpus: this.#context.machine.accelerator === 'kvm',
      };
      const changes = await allocate(context, this.#table.find(id), this.#runner.get(id), request);
      return { guest: this.inspect(id), changes };
    });
  }

  async exec(
    nameOrId: string,
    spec: { command: readonly string[]; env: readonly string[]; input: Buffer | undefined },
    signal: AbortSignal,
  ): Promise<GuestExecResult> {
    const record = this.#table.find(nameOrId);
    const guest = this.#answering(record);
    const [path = '', ...args] = spec.command;
    const result = await guest.agent
      .exec({ path, args, env: spec.env, ...(spec.input ? { input: spec.input } : {}) }, signal)
      .catch((error: unknown) => {
        // Refused by the agent itself, before anything ran: it could not start the program. A shell says 127 then.
        if (!(error instanceof EngineError) || error.code !== 'invalid-argument') throw error;
        return {
          exitCode: 127,
          stdout: Buffer.alloc(0),
          stderr: Buffer.from(`${error.message}\n`),
          isTruncated: false,
        };
      });
    return {
      // A shell's convention for an end by a signal.
      exitCode: result.exitCode ?? 128 + ('signalNumber' in result ? (result.signalNumber ?? 0) : 0),
      stdout: result.stdout.toString('base64'),
      stderr: result.stderr.toString('base64'),
      isTruncated: result.isTruncated,
    };
  }

  readFile(nameOrId: string, path: string): Readable {
    const guest = this.#answering(this.#table.find(nameOrId));
    return Readable.from(guest.agent.readFile(path), { objectMode: false });
  }

  async writeFile(nameOrId: string, path: string, content: Readable): Promise<void> {
    await this.#answering(this.#table.find(nameOrId)).agent.writeFile(path, content);
  }

  consoleLog(nameOrId: string, options: { follow: boolean }, signal: AbortSignal): Promise<Readable> {
    const { id } = this.#table.find(nameOrId);
    const running = this.#runner.get(id);
    const follow = options.follow && running ? AbortSignal.any([signal, running.console.ended]) : undefined;
    const log = readLog(this.#host.paths(id).consoleLog, follow ? { follow } : {});
    return Promise.resolve(Readable.from(log, { objectMode: false }));
  }

  attachConsole(nameOrId: string): Promise<GuestConsole> {
    const record = this.#table.find(nameOrId);
    return Promise.resolve(this.#running(record.id, 'attached to').console.attach());
  }

  async listImages(): Promise<GuestImageView[]> {
    const stored = await this.#images.list();
    const missing = this.#images.builtIn.filter((name) => !stored.some((image) => image.name === name));
    return [
      ...stored.map((image) => this.#imageView(image)),
      ...missing.map((name) => ({ name, isPresent: false, virtualBytes: 0, actualBytes: 0, usedBy: [] })),
    ];
  }

  async importImage(name: string, content: Readable, signal: AbortSignal): Promise<GuestImageView> {
    return this.#imageView(await this.#images.import(name, content, signal));
  }

  async removeImage(name: string): Promise<void> {
    const usedBy = this.#usersOf(name);
    if (usedBy.length > 0) {
      throw new EngineError(
        'conflict',
        `the disks of these guests stand on ${name} and would break: ${usedBy.join(', ')}; delete them first`,
        { details: { usedBy } },
      );
    }
    await this.#images.remove(name);
  }

  async #waitUntilReady(id: string, seconds: number, onProgress: LaunchProgress, signal: AbortSignal): Promise<void> {
    const { name } = this.#table.find(id);
    const guest = this.#runner.get(id);
    const ended = new EngineError(
      'wrong-state',
      `guest ${name} ended while it booted; see what it said with: bulkhead vm console --log ${name}`,
    );
    if (!guest) throw ended;
    const outcome = await waitUntilReady({ name, guest, seconds, onProgress, signal });
    if (outcome === 'ended') {
      await guest.settled;
      throw ended;
    }
    this.#table.update({ ...this.#table.find(id), ...(outcome.cloudInit ? { cloudInit: outcome.cloudInit } : {}) });
  }

  /** Takes a guest away, in whatever state it is. */
  async #undo(record: GuestRecord): Promise<void> {
    await this.#runner.kill(record.id);
    await this.#host.removeFiles(record);
    if (record.network) this.#context.network.release(record.network.ipv4Address);
    this.#table.delete(record.id);
  }

  #running(id: string, done: string): RunningGuest {
    const guest = this.#runner.get(id);
    if (guest) return guest;
    const { name } = this.#table.find(id);
    throw new EngineError(
      'wrong-state',
      `guest ${name} is not running and cannot be ${done}; start it: bulkhead vm start ${name}`,
    );
  }

  #answering(record: GuestRecord): RunningGuest {
    const guest = this.#running(record.id, 'asked');
    if (guest.machine.isAgentOpen) return guest;
    throw new EngineError(
      'unavailable',
      `no agent answers in guest ${record.name}: it is still booting, or has no qemu-guest-agent; its console works without: bulkhead vm console ${record.name}`,
    );
  }

  #usersOf(image: string): string[] {
    return this.#table.all().flatMap((record) => (record.image === image ? [record.name] : []));
  }

  #imageView({ name, virtualBytes, actualBytes }: StoredGuestImage): GuestImageView {
    return { name, isPresent: true, virtualBytes, actualBytes, usedBy: this.#usersOf(name) };
  }

  #view(record: GuestRecord): GuestView {
    return viewGuest(record, {
      accelerator: this.#context.machine.accelerator,
      paths: this.#host.paths(record.id),
      isAgentOpen: this.#runner.get(record.id)?.machine.isAgentOpen ?? false,
    });
  }
}
