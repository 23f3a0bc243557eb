import { mkdir, rm } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { isRunning, transition } from '../core/container-state.ts';
import { LONGEST_TIMER_MS, settlesWithin } from '../core/deadline.ts';
import { EngineError } from '../core/errors.ts';
import { generateName, isContainerName, newId } from '../core/ids.ts';
import { parseSignal } from '../core/signals.ts';
import type { Sandbox } from '../sandbox/sandbox.ts';
import type { ContainerCreateRequest } from '../wire/docker/container-config.ts';
import { Attachments } from './attachments.ts';
import { filterContainers } from './container-filters.ts';
import { planContainer } from './container-plan.ts';
import type { ContainerRecord } from './container-record.ts';
import { containerEvent } from './container-event.ts';
import { ContainerRunner } from './container-runner.ts';
import { containerPaths, toView } from './container-view.ts';
import type { EngineContext } from './engine-context.ts';
import type {
  Attachment,
  AttachOptions,
  ContainerService,
  ContainerView,
  Filters,
  LogOptions,
  TerminalSize,
  WaitCondition,
  WaitResult,
} from './engine.ts';
import { imageDefaults } from './image-defaults.ts';
import { KeyedLock } from './keyed-lock.ts';
import { planLogOptions } from './log-options.ts';
import { readLog } from './log-reader.ts';
import { Waiters } from './waiters.ts';

const DEFAULT_STOP_TIMEOUT_SECONDS = 10;

/** Use cases of containers. Effects on one container run under that container's lock; waiting never holds it. */
export class Containers implements ContainerService {
  readonly #context: EngineContext;
  readonly #locks = new KeyedLock();
  readonly #waiters = new Waiters();
  readonly #attachments = new Attachments();
  readonly #runner: ContainerRunner;
  readonly #restarting = new Set<string>();
  #isEnding = false;
  readonly #afterRemoval: (imageId: string) => Promise<void>;

  /** `afterRemoval` is told of the image of each container that is gone. */
  constructor(context: EngineContext, afterRemoval: (imageId: string) => Promise<void>) {
    this.#context = context;
    this.#afterRemoval = afterRemoval;
    this.#runner = new ContainerRunner(context, {
      attachments: this.#attachments,
      waiters: this.#waiters,
      onExited: (id) => this.#afterExit(id),
    });
  }

  /** Brings records and reality together after the daemon's start. */
  async reconcile(): Promise<void> {
    await this.#runner.reconcile();
    for (const record of this.#context.table.all()) {
      if (record.hostConfig.AutoRemove && !isRunning(record.state)) this.#afterExit(record.id);
      else if (record.state.status === 'removing') await this.#removeStopped(record.id);
    }
  }

  /** See `ContainerRunner.sandboxOf`. */
  sandboxOf(record: ContainerRecord): Sandbox {
    return this.#runner.sandboxOf(record);
  }

  hasRunning(): boolean {
    return this.#context.table.all().some((record) => isRunning(record.state));
  }

  /** For a daemon that is told to take its containers with it. */
  async stopAll(): Promise<void> {
    const running = this.#context.table.all().filter((record) => isRunning(record.state));
    const stops = running.map(({ id }) => this.stop(id, { timeoutSeconds: undefined, signal: undefined }));
    for (const outcome of await Promise.allSettled(stops)) {
      if (outcome.status === 'rejected')
        this.#context.logger.error({ err: outcome.reason as unknown }, 'cannot stop a container');
    }
  }

  /** The daemon is about to end: nothing is started any more, and what is under way comes to its end. */
  async settle(): Promise<void> {
    this.#isEnding = true;
    await this.#locks.idle();
  }

  /** The daemon ends; containers go on. */
  detach(): void {
    this.#runner.detach();
  }

  async create(request: ContainerCreateRequest, name: string | undefined): Promise<{ id: string; warnings: string[] }> {
    const { table, images, clock, events, machine } = this.#context;
    const reference = request.Image ?? '';
    if (reference === '') throw new EngineError('invalid-argument', 'no image specified');
    const wantedName = name?.replace(/^\//, '');
    if (wantedName !== undefined && wantedName !== '' && !isContainerName(wantedName)) {
      throw new EngineError(
        'invalid-argument',
        `Invalid container name (${name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`,
      );
    }
    const image = images.resolve(reference);
    const id = newId();
    const { warnings, ...planned } = planContainer(
      request,
      { id: image.id, config: imageDefaults(image) },
      {
        host: this.#context.host,
        machineDefaults: this.#context.machineDefaults,
        defaultIsolation: this.#context.defaultIsolation,
        allowedIsolations: this.#context.allowedIsolations,
        accelerator: machine.accelerator,
      },
      id,
    );
    if (planned.isolation === 'vm') machine.assertUsable();
    const record: ContainerRecord = {
      ...planned,
      name: wantedName || generateName((candidate) => table.isNameTaken(candidate)),
      createdAtMs: clock.nowMs(),
    };
    table.insert(record);
    await mkdir(containerPaths(this.#context.dataRoot, id).stateDir, { recursive: true, mode: 0o700 });
    events.publish(containerEvent(record, 'create'));
    return { id, warnings };
  }

  list(options: { all: boolean; limit: number; filters: Filters }): ContainerView[] {
    const { table, images } = this.#context;
    return filterContainers(
      table.all().map((record) => this.#view(record)),
      options,
      {
        find: (nameOrId) => this.inspect(nameOrId),
        imageId: (name) => {
          try {
            return images.resolve(name).id;
          } catch {
            return undefined;
          }
        },
      },
    );
  }

  inspect(nameOrId: string): ContainerView {
    return this.#view(this.#context.table.find(nameOrId));
  }

  start(nameOrId: string): Promise<'started' | 'already-running'> {
    return this.#locked(nameOrId, async ({ id }) => {
      if (this.#isEnding)
        throw new EngineError('unavailable', 'the daemon is shutting down and starts nothing any more');
      const record = await this.#settled(id);
      if (isRunning(record.state)) return 'already-running';
      if (record.state.status !== 'created' && record.state.status !== 'exited') {
        throw new EngineError('wrong-state', `container ${id} is ${record.state.status} and cannot be started`);
      }
      try {
        await this.#runner.start(record);
      } catch (error) {
        this.#afterExit(id);
        throw error;
      }
      return 'started';
    });
  }

  async stop(
    nameOrId: string,
    options: { timeoutSeconds: number | undefined; signal: string | undefined },
  ): Promise<'stopped' | 'not-running'> {
    const record = await this.#afterPending(nameOrId);
    if (!isRunning(record.state)) return 'not-running';
    const signal = parseSignal(options.signal || record.config.StopSignal || 'SIGTERM');
    const timeoutSeconds = options.timeoutSeconds ?? record.config.StopTimeout ?? DEFAULT_STOP_TIMEOUT_SECONDS;
    const gone = this.#runner.gone(record.id);
    // Not waited for: a guest that does not answer must not keep the time from running out. A process that is ending already refuses it.
    this.#signal(record, signal).catch((error: unknown) => {
      this.#context.logger.debug({ err: error, container: record.id }, 'the stop signal was refused');
    });
    const isGone = await settlesWithin(gone, timeoutSeconds < 0 ? LONGEST_TIMER_MS : timeoutSeconds * 1000);
    if (!isGone) {
      this.#context.events.publish(containerEvent(record, 'kill', { signal: '9' }));
      await this.#runner.killAndWait(record);
    }
    this.#context.events.publish(containerEvent(record, 'stop'));
    return 'stopped';
  }

  async restart(
    nameOrId: string,
    options: { timeoutSeconds: number | undefined; signal: string | undefined },
  ): Promise<void> {
    const { id } = this.#context.table.find(nameOrId);
    // The end in the middle of a restart is not the end that `--rm` means.
    this.#restarting.add(id);
    try {
      await this.stop(id, options);
      await this.start(id);
    } finally {
      this.#restarting.delete(id);
      const record = this.#context.table.get(id);
      if (record && !isRunning(record.state)) this.#afterExit(id);
    }
    this.#context.events.publish(containerEvent(this.#context.table.find(id), 'restart'));
  }

  async kill(nameOrId: string, signal: string | undefined): Promise<void> {
    const record = await this.#afterPending(nameOrId);
    if (!isRunning(record.state)) {
      throw new EngineError('wrong-state', `cannot kill container: ${nameOrId}: container ${record.id} is not running`);
    }
    const number = parseSignal(signal || 'SIGKILL');
    if (number !== 9) {
      await this.#signal(record, number);
      return;
    }
    this.#context.events.publish(containerEvent(record, 'kill', { signal: '9' }));
    await this.#runner.killAndWait(record);
  }

  async resize(nameOrId: string, size: TerminalSize): Promise<void> {
    await this.#runner.resize(this.#context.table.find(nameOrId), size);
  }

  rename(nameOrId: string, name: string): Promise<void> {
    return this.#locked(nameOrId, (record) => {
      const { table, events } = this.#context;
      const wanted = name.replace(/^\//, '');
      if (!isContainerName(wanted)) {
        throw new EngineError(
          'invalid-argument',
          `Invalid container name (${name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`,
        );
      }
      if (table.isNameTaken(wanted)) {
        throw new EngineError(
          'conflict',
          `Conflict. The container name "/${wanted}" is already in use by container "${table.find(wanted).id}". ` +
            'You have to remove (or rename) that container to be able to reuse that name.',
        );
      }
      const renamed = { ...record, name: wanted };
      table.update(renamed);
      events.publish(containerEvent(renamed, 'rename', { oldName: `/${record.name}` }));
      return Promise.resolve();
    });
  }

  wait(nameOrId: string, condition: WaitCondition, signal: AbortSignal): { result: Promise<WaitResult> } {
    const record = this.#context.table.find(nameOrId);
    if (condition === 'not-running' && !isRunning(record.state)) {
      const { state } = record;
      const ended =
        state.status === 'exited' ? { exitCode: state.exitCode, error: state.error } : { exitCode: 0, error: '' };
      return { result: Promise.resolve(ended) };
    }
    return { result: this.#waiters.add(record.id, condition, signal) };
  }

  async remove(nameOrId: string, options: { force: boolean; removeVolumes: boolean }): Promise<void> {
    const record = await this.#afterPending(nameOrId);
    if (isRunning(record.state)) {
      if (!options.force) {
        throw new EngineError(
          'conflict',
          `cannot remove container "/${record.name}": container is running: stop the container before removing or force remove`,
        );
      }
      this.#context.events.publish(containerEvent(record, 'kill', { signal: '9' }));
      await this.#runner.killAndWait(record);
    }
    await this.#removeStopped(record.id);
  }

  async prune(filters: Filters): Promise<{ deleted: string[]; reclaimedBytes: number }> {
    for (const key of filters.keys()) {
      if (key !== 'label' && key !== 'label!' && key !== 'until')
        throw new EngineError('invalid-argument', `invalid filter '${key}'`);
    }
    if (filters.has('until') || filters.has('label!')) {
      throw new EngineError('unsupported', 'container prune knows the filter label=… only; remove others one by one');
    }
    const stopped = this.list({ all: true, limit: 0, filters }).filter(
      ({ state }) => state.status === 'created' || state.status === 'exited' || state.status === 'dead',
    );
    await Promise.all(stopped.map(({ id }) => this.#removeStopped(id)));
    return { deleted: stopped.map(({ id }) => id), reclaimedBytes: 0 };
  }

  async attach(nameOrId: string, options: AttachOptions): Promise<Attachment> {
    const record = this.#context.table.find(nameOrId);
    const { status } = record.state;
    if (status === 'paused' || status === 'restarting') {
      throw new EngineError('wrong-state', `container ${record.id} is ${status}: attach to it once it runs again`);
    }
    const running = isRunning(record.state);
    const history = options.logs
      ? this.#readLog(record, {
          ...ALL_LOGS,
          stdout: options.stdout,
          stderr: options.stderr,
          follow: options.stream && running,
        })
      : undefined;
    const sandbox = running && options.stream ? this.#runner.sandboxOf(record) : undefined;
    const attachment = await this.#attachments.attach(record, options, sandbox, history, () => {
      this.#context.events.publish(containerEvent(record, 'detach'));
    });
    this.#context.events.publish(containerEvent(record, 'attach'));
    return attachment;
  }

  logs(nameOrId: string, options: LogOptions, signal: AbortSignal): Promise<{ tty: boolean; output: Readable }> {
    const record = this.#context.table.find(nameOrId);
    if (record.state.status === 'dead' || record.state.status === 'removing') {
      throw new EngineError('conflict', 'can not get logs from container which is dead or marked for removal');
    }
    if (record.hostConfig.LogConfig?.Type === 'none') {
      throw new EngineError('unsupported', 'configured logging driver does not support reading');
    }
    return Promise.resolve({ tty: record.config.Tty ?? false, output: this.#readLog(record, options, signal) });
  }

  #readLog(record: ContainerRecord, options: LogOptions, signal: AbortSignal = new AbortController().signal): Readable {
    const ended = isRunning(record.state) ? this.#runner.gone(record.id) : Promise.resolve();
    const { maxFiles } = planLogOptions(record.hostConfig);
    const { logPath: path } = containerPaths(this.#context.dataRoot, record.id);
    return Readable.from(readLog({ path, maxFiles, tty: record.config.Tty ?? false, ended }, options, signal), {
      objectMode: false,
    });
  }

  async #signal(record: ContainerRecord, signal: number): Promise<void> {
    this.#context.events.publish(containerEvent(record, 'kill', { signal: String(signal) }));
    await this.#runner.kill(record, signal);
  }

  /** A container that its user wants gone with its end (`--rm`) goes now, also when it never started. */
  #afterExit(id: string): void {
    const record = this.#context.table.get(id);
    if (!record?.hostConfig.AutoRemove || this.#restarting.has(id)) return;
    this.#removeStopped(id).catch((error: unknown) => {
      this.#context.logger.error({ err: error, container: id }, 'cannot remove an ended container');
    });
  }

  #removeStopped(id: string): Promise<void> {
    return this.#locks.run(id, async () => {
      const { table, events, dataRoot } = this.#context;
      if (!table.get(id)) return;
      const record = await this.#settled(id);
      if (record.state.status !== 'removing') {
        const state = transition(record.state, { type: 'removalStarted' });
        if (!state)
          throw new EngineError(
            'conflict',
            `cannot remove container "/${record.name}": it has been started again; stop it first`,
          );
        table.update({ ...record, state });
      }
      await rm(containerPaths(dataRoot, id).stateDir, { recursive: true, force: true });
      table.delete(id);
      events.publish(containerEvent(record, 'destroy'));
      this.#waiters.removed(id);
      await this.#afterRemoval(record.imageId);
    });
  }

  #locked<T>(nameOrId: string, task: (record: ContainerRecord) => Promise<T>): Promise<T> {
    const { id } = this.#context.table.find(nameOrId);
    return this.#locks.run(id, () => {
      const record = this.#context.table.get(id);
      if (!record) throw new EngineError('not-found', `No such container: ${nameOrId}`);
      return task(record);
    });
  }

  /** The record once what is under way for the container (a start, a removal) is through. */
  #afterPending(nameOrId: string): Promise<ContainerRecord> {
    return this.#locked(nameOrId, (record) => Promise.resolve(record));
  }

  /** The record once nothing is left of a sandbox that has ended: its names on the host are free again. */
  async #settled(id: string): Promise<ContainerRecord> {
    const { table } = this.#context;
    const before = table.get(id);
    if (before && !isRunning(before.state)) await this.#runner.gone(id).catch(() => undefined);
    const record = table.get(id);
    if (!record) throw new EngineError('not-found', `No such container: ${id}`);
    return record;
  }

  #view(record: ContainerRecord): ContainerView {
    return toView(record, this.#context.dataRoot);
  }
}

const ALL_LOGS: LogOptions = {
  stdout: true,
  stderr: true,
  follow: false,
  sinceNs: undefined,
  untilNs: undefined,
  tail: undefined,
  timestamps: false,
  details: false,
};
