import { mkdir } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { hasProcesses, isRunning } from '../core/container-state.ts';
import { EngineError } from '../core/errors.ts';
import { generateName, isContainerName, newId } from '../core/ids.ts';
import type { Sandbox } from '../sandbox/sandbox.ts';
import type { ContainerCreateRequest } from '../wire/docker/container-config.ts';
import type { ContainerUpdateRequest } from '../wire/docker/container-update.ts';
import { Attachments } from './attachments.ts';
import { containerEvent } from './container-event.ts';
import { filterContainers, selectPrunable } from './container-filters.ts';
import { ContainerLifecycle, type StopOptions } from './container-lifecycle.ts';
import { ContainerLogs } from './container-logs.ts';
import { planContainer } from './container-plan.ts';
import type { ContainerRecord } from './container-record.ts';
import { ContainerRemoval } from './container-removal.ts';
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
import { HealthMonitors } from './health-monitors.ts';
import { imageDefaults } from './image-defaults.ts';
import { KeyedLock } from './keyed-lock.ts';
import { Waiters } from './waiters.ts';

/** Use cases of containers. Effects on one container run under that container's lock; waiting never holds it. */
export class Containers implements ContainerService {
  readonly #context: EngineContext;
  readonly #locks = new KeyedLock();
  readonly #waiters = new Waiters();
  readonly #attachments = new Attachments();
  readonly #lifecycle: ContainerLifecycle;
  readonly #removal: ContainerRemoval;
  readonly #logs: ContainerLogs;
  readonly #health: HealthMonitors;

  /** `afterRemoval` is told of the image of each container that is gone. */
  constructor(context: EngineContext, afterRemoval: (imageId: string) => Promise<void>) {
    this.#context = context;
    const [locks, waiters] = [this.#locks, this.#waiters];
    const health = new HealthMonitors(context);
    this.#health = health;
    const lifecycle = new ContainerLifecycle(context, {
      locks,
      waiters,
      attachments: this.#attachments,
      onStarted: (record) => health.watch(record, lifecycle.runner.sandboxOf(record)),
      onEnding: (record) => {
        if (record.hostConfig.AutoRemove) this.#removal.retire(record);
      },
      onEnded: (record) => this.#afterEnd(record),
    });
    this.#lifecycle = lifecycle;
    this.#removal = new ContainerRemoval(context, {
      locks,
      waiters,
      lifecycle,
      afterRemoval: (record) => {
        health.forget(record.id);
        return afterRemoval(record.imageId);
      },
    });
    this.#logs = new ContainerLogs(context.dataRoot, (id) => lifecycle.ended(id));
  }

  /** Brings records and reality together after the daemon's start. */
  async reconcile(): Promise<void> {
    await this.#lifecycle.runner.reconcile();
    for (const record of this.#context.table.all()) {
      if (this.#lifecycle.runner.isLive(record.id)) this.#health.watch(record, this.sandboxOf(record));
      if (!isRunning(record.state)) this.#afterEnd(record);
      if (record.state.status === 'removing') await this.#removal.removeEnded(record.id);
    }
  }

  /** Starts what is to run again after the daemon's start; returns at once. */
  resume(): void {
    this.#lifecycle.resume();
  }

  /** See `ContainerRunner.sandboxOf`. */
  sandboxOf(record: ContainerRecord): Sandbox {
    return this.#lifecycle.runner.sandboxOf(record);
  }

  hasRunning(): boolean {
    return this.#context.table.all().some((record) => hasProcesses(record.state));
  }

  /** For a daemon that is told to take its containers with it. Their policies bring them back with the next one. */
  async stopAll(): Promise<void> {
    const running = this.#context.table.all().filter((record) => hasProcesses(record.state));
    const stops = running.map(({ id }) => this.stop(id, { timeoutSeconds: undefined, signal: undefined }));
    for (const outcome of await Promise.allSettled(stops)) {
      if (outcome.status === 'rejected')
        this.#context.logger.error({ err: outcome.reason as unknown }, 'cannot stop a container');
    }
  }

  /** The daemon is about to end: nothing is started any more, and what is under way comes to its end. */
  async settle(): Promise<void> {
    this.#lifecycle.end();
    await this.#locks.idle();
  }

  /** The daemon ends; containers go on. */
  detach(): void {
    this.#health.detach();
    this.#lifecycle.runner.detach();
  }

  async create(request: ContainerCreateRequest, name: string | undefined): Promise<{ id: string; warnings: string[] }> {
    const { table, images, clock, events, machine } = this.#context;
    const reference = request.Image ?? '';
    if (reference === '') throw new EngineError('invalid-argument', 'no image specified');
    const wantedName = name === undefined || name === '' || name === '/' ? undefined : await this.#claimName(name);
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
      name: wantedName ?? generateName((candidate) => table.isNameTaken(candidate)),
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
    return this.#lifecycle.start(nameOrId);
  }

  stop(nameOrId: string, options: StopOptions): Promise<'stopped' | 'not-running'> {
    return this.#lifecycle.stop(nameOrId, options);
  }

  restart(nameOrId: string, options: StopOptions): Promise<void> {
    return this.#lifecycle.restart(nameOrId, options);
  }

  kill(nameOrId: string, signal: string | undefined): Promise<void> {
    return this.#lifecycle.kill(nameOrId, signal);
  }

  pause(nameOrId: string): Promise<void> {
    return this.#lifecycle.pause(nameOrId);
  }

  unpause(nameOrId: string): Promise<void> {
    return this.#lifecycle.unpause(nameOrId);
  }

  update(nameOrId: string, request: ContainerUpdateRequest): Promise<{ warnings: string[] }> {
    return this.#lifecycle.update(nameOrId, request);
  }

  async resize(nameOrId: string, size: TerminalSize): Promise<void> {
    await this.#lifecycle.runner.resize(this.#context.table.find(nameOrId), size);
  }

  async rename(nameOrId: string, name: string): Promise<void> {
    const wanted = await this.#claimName(name);
    await this.#lifecycle.locked(nameOrId, (record) => {
      const { table, events } = this.#context;
      if (wanted === record.name) {
        throw new EngineError('invalid-argument', 'Renaming a container with the same name as its current name');
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
      // One whose program could not be started has an exit code, too.
      const exitCode = state.status === 'created' ? (state.exitCode ?? 0) : 0;
      const ended =
        state.status === 'exited' ? { exitCode: state.exitCode, error: state.error } : { exitCode, error: '' };
      return { result: Promise.resolve(ended) };
    }
    return { result: this.#waiters.add(record.id, condition, signal) };
  }

  remove(nameOrId: string, options: { force: boolean; removeVolumes: boolean }): Promise<void> {
    return this.#removal.remove(nameOrId, options);
  }

  prune(filters: Filters): Promise<{ deleted: string[]; reclaimedBytes: number }> {
    return this.#removal.prune(selectPrunable(this.#context.table.all(), filters).map(({ id }) => id));
  }

  async attach(nameOrId: string, options: AttachOptions): Promise<Attachment> {
    const record = this.#context.table.find(nameOrId);
    const { status } = record.state;
    if (status === 'paused' || status === 'restarting') {
      throw new EngineError('wrong-state', `container ${record.id} is ${status}: attach to it once it runs again`);
    }
    const running = isRunning(record.state);
    const { stdout, stderr } = options;
    const history = options.logs
      ? this.#logs.history(record, { stdout, stderr, follow: options.stream && running })
      : undefined;
    const sandbox = running && options.stream ? this.#lifecycle.runner.sandboxOf(record) : undefined;
    const attachment = await this.#attachments.attach(record, options, sandbox, history, () => {
      this.#context.events.publish(containerEvent(record, 'detach'));
    });
    this.#context.events.publish(containerEvent(record, 'attach'));
    return attachment;
  }

  logs(nameOrId: string, options: LogOptions, signal: AbortSignal): Promise<{ tty: boolean; output: Readable }> {
    const record = this.#context.table.find(nameOrId);
    const output = this.#logs.open(record, options, signal);
    return Promise.resolve({ tty: record.config.Tty ?? false, output });
  }

  /** A legal name, once nothing is left of a container that has gone with its end and had it. */
  async #claimName(name: string): Promise<string> {
    const wanted = name.replace(/^\//, '');
    if (!isContainerName(wanted)) {
      throw new EngineError(
        'invalid-argument',
        `Invalid container name (${name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`,
      );
    }
    await this.#removal.nameFree(wanted);
    return wanted;
  }

  /** A container that its user wants gone with its end (`--rm`) goes now, also when it never started. */
  #afterEnd({ id, hostConfig }: ContainerRecord): void {
    if (!hostConfig.AutoRemove) return;
    this.#removal.removeEnded(id).catch((error: unknown) => {
      this.#context.logger.error({ err: error, container: id }, 'cannot remove an ended container');
    });
  }

  #view(record: ContainerRecord): ContainerView {
    const health = this.#health.report(record.id);
    return { ...toView(record, this.#context.dataRoot), ...(health ? { health } : {}) };
  }
}
