import { hasProcesses, isRunning, type ContainerEvent } from '../core/container-state.ts';
import { LONGEST_TIMER_MS, settlesWithin } from '../core/deadline.ts';
import { EngineError } from '../core/errors.ts';
import { planResources } from '../core/resources.ts';
import { restartPolicy, wantsRestart } from '../core/restart-policy.ts';
import { parseSignal } from '../core/signals.ts';
import { Semaphore } from '../oci/semaphore.ts';
import type { ContainerUpdateRequest } from '../wire/docker/container-update.ts';
import type { Attachments } from './attachments.ts';
import { containerEvent } from './container-event.ts';
import { wallFacts } from './container-plan.ts';
import { nextState, type ContainerRecord } from './container-record.ts';
import { ContainerRunner } from './container-runner.ts';
import type { EngineContext } from './engine-context.ts';
import type { KeyedLock } from './keyed-lock.ts';
import { RestartSupervisor } from './restart-supervisor.ts';
import { resourceRequest } from './sandbox-plan.ts';
import { planUpdate } from './update-plan.ts';
import type { Waiters } from './waiters.ts';

const DEFAULT_STOP_TIMEOUT_SECONDS = 10;
/** Containers that the daemon starts at once after its own start. */
const STARTS_AT_ONCE = 4;
const SIGKILL = 9;

export interface StopOptions {
  readonly timeoutSeconds: number | undefined;
  readonly signal: string | undefined;
}

export interface LifecycleParts {
  readonly locks: KeyedLock;
  readonly waiters: Waiters;
  readonly attachments: Attachments;
  /** A container's program runs. */
  readonly onStarted: (record: ContainerRecord) => void;
  /** A container has ended, and nothing will start it again by itself; what it had on the host is still being given back. */
  readonly onEnding: (record: ContainerRecord) => void;
  /** That is through. */
  readonly onEnded: (record: ContainerRecord) => void;
}

/** Starting and ending containers, by hand and by their restart policies. Effects run under the container's lock; waiting never holds it. */
export class ContainerLifecycle {
  readonly runner: ContainerRunner;
  readonly #context: EngineContext;
  readonly #parts: LifecycleParts;
  readonly #supervisor = new RestartSupervisor();
  /** Being restarted by hand: id → settles when that is through. */
  readonly #restarting = new Map<string, Promise<void>>();
  #isEnding = false;

  constructor(context: EngineContext, parts: LifecycleParts) {
    this.#context = context;
    this.#parts = parts;
    this.runner = new ContainerRunner(context, {
      attachments: parts.attachments,
      waiters: parts.waiters,
      decideRestart: (record, exit) => this.#supervisor.decide(record, exit),
      onExiting: (id) => {
        const record = context.table.get(id);
        if (record && !this.#restarting.has(id) && !isRunning(record.state)) parts.onEnding(record);
      },
      onExited: (id) => this.#afterExit(id),
    });
  }

  /** Starts what its policy wants to run after the daemon's start; returns at once. */
  resume(): void {
    const starts = new Semaphore(STARTS_AT_ONCE);
    for (const record of this.#context.table.all()) {
      const { id, state } = record;
      const start =
        state.status === 'restarting'
          ? () => this.#restartByPolicy(id)
          : isWantedAfterDaemonStart(record)
            ? () => this.start(id).then(() => undefined)
            : undefined;
      if (!start) continue;
      const turn = async (): Promise<void> => {
        using _slot = await starts.acquire();
        if (!this.#isEnding) await start();
      };
      turn().catch((error: unknown) => {
        this.#context.logger.warn({ err: error, container: id }, 'cannot start a container after the daemon’s start');
      });
    }
  }

  /** Nothing is started any more. */
  end(): void {
    this.#isEnding = true;
    this.#supervisor.end();
  }

  start(nameOrId: string): Promise<'started' | 'already-running'> {
    return this.locked(nameOrId, async ({ id }) => {
      if (this.#isEnding)
        throw new EngineError('unavailable', 'the daemon is shutting down and starts nothing any more');
      const record = await this.settled(id);
      if (record.state.status === 'paused') {
        throw new EngineError('conflict', 'cannot start a paused container, try unpause instead');
      }
      if (isRunning(record.state)) return 'already-running';
      if (record.state.status !== 'created' && record.state.status !== 'exited') {
        throw new EngineError('wrong-state', `container ${id} is ${record.state.status} and cannot be started`);
      }
      this.#supervisor.reset(id);
      try {
        await this.#run({ ...record, restartCount: 0, isStoppedByHand: false });
      } catch (error) {
        this.#afterExit(id);
        throw error;
      }
      return 'started';
    });
  }

  async stop(nameOrId: string, options: StopOptions): Promise<'stopped' | 'not-running'> {
    const record = await this.afterPending(nameOrId);
    if (!isRunning(record.state)) return 'not-running';
    const signal = parseSignal(options.signal || record.config.StopSignal || 'SIGTERM');
    // With a daemon that ends, its policy is to bring it back.
    if (!this.#isEnding) this.#markStopped(record);
    this.#supervisor.cancel(record.id);
    if (record.state.status === 'restarting') {
      await this.cancelRestart(record.id);
    } else {
      const timeoutSeconds = options.timeoutSeconds ?? record.config.StopTimeout ?? DEFAULT_STOP_TIMEOUT_SECONDS;
      const gone = this.runner.gone(record.id);
      // Not waited for: a guest that does not answer must not keep the time from running out. A process that is ending already refuses it.
      this.#signalAndWake(record, signal).catch((error: unknown) => {
        this.#context.logger.debug({ err: error, container: record.id }, 'the stop signal was refused');
      });
      const isGone = await settlesWithin(gone, timeoutSeconds < 0 ? LONGEST_TIMER_MS : timeoutSeconds * 1000);
      if (!isGone) await this.killNow(record);
    }
    this.#context.events.publish(containerEvent(record, 'stop'));
    return 'stopped';
  }

  async restart(nameOrId: string, options: StopOptions): Promise<void> {
    const { id } = this.#context.table.find(nameOrId);
    const through = Promise.withResolvers<void>();
    // The end in the middle of a restart is not the end that `--rm` means.
    this.#restarting.set(id, through.promise);
    try {
      await this.stop(id, options);
      await this.start(id);
    } finally {
      this.#restarting.delete(id);
      through.resolve();
      const record = this.#context.table.get(id);
      if (record && !isRunning(record.state)) this.#afterExit(id);
    }
    this.#context.events.publish(containerEvent(this.#context.table.find(id), 'restart'));
  }

  async kill(nameOrId: string, signal: string | undefined): Promise<void> {
    const record = await this.afterPending(nameOrId);
    if (!isRunning(record.state)) {
      throw new EngineError('wrong-state', `cannot kill container: ${nameOrId}: container ${record.id} is not running`);
    }
    const number = parseSignal(signal || 'SIGKILL');
    this.#markStopped(record);
    const isMeantToEnd = isStopSignal(record, number);
    if (isMeantToEnd) this.#supervisor.cancel(record.id);
    if (record.state.status === 'restarting') {
      if (isMeantToEnd) await this.cancelRestart(record.id);
      return;
    }
    if (number === SIGKILL) await this.killNow(record);
    else if (isMeantToEnd) await this.#signalAndWake(record, number);
    else await this.#signal(record, number);
  }

  /** As `killNow`, and its policy does not start it again. */
  async endForGood(record: ContainerRecord): Promise<void> {
    this.#supervisor.cancel(record.id);
    await this.killNow(record);
  }

  /** Ends its processes by force, and waits until nothing of them is left. */
  async killNow(record: ContainerRecord): Promise<void> {
    this.#context.events.publish(containerEvent(record, 'kill', { signal: String(SIGKILL) }));
    await this.runner.killAndWait(record);
  }

  /** Takes a container out of the wait for its restart. */
  async cancelRestart(id: string): Promise<void> {
    this.#supervisor.cancel(id);
    await this.locked(id, async () => {
      await this.runner.gone(id).catch(() => undefined);
      const record = this.#context.table.get(id);
      if (record?.state.status !== 'restarting') return;
      const { exitCode, error } = record.state;
      this.#apply(record, { type: 'restartCancelled' });
      this.#parts.waiters.exited(id, { exitCode, error });
    });
  }

  pause(nameOrId: string): Promise<void> {
    return this.locked(nameOrId, async (record) => {
      const { id, state } = record;
      if (state.status === 'restarting') throw isBeingRestarted(id);
      if (state.status === 'paused') throw new EngineError('conflict', `Container ${id} is already paused`);
      if (state.status !== 'running') throw new EngineError('conflict', `Container ${id} is not running`);
      await this.runner.sandboxOf(record).pause(id);
      this.#changed(id, { type: 'paused' }, 'pause');
    });
  }

  unpause(nameOrId: string): Promise<void> {
    return this.locked(nameOrId, async (record) => {
      const { id } = record;
      if (record.state.status !== 'paused') throw new EngineError('conflict', `Container ${id} is not paused`);
      await this.runner.sandboxOf(record).unpause(id);
      this.#changed(id, { type: 'unpaused' }, 'unpause');
    });
  }

  /** In force at once where it runs; a refusal there leaves everything as it was. */
  update(nameOrId: string, request: ContainerUpdateRequest): Promise<{ warnings: string[] }> {
    return this.locked(nameOrId, async (record) => {
      const { id, state } = record;
      if (state.status === 'removing' || state.status === 'dead') {
        throw new EngineError('conflict', `Container is marked for removal and cannot be "update".`);
      }
      const { resources } = planUpdate(record, request, this.#context);
      if (resources && hasProcesses(state)) {
        const sandbox = this.runner.sandboxOf(record);
        try {
          await sandbox.update(id, { resources });
        } catch (error) {
          throw explainRefusal(record, error);
        }
      }
      // Read again: it may have ended meanwhile.
      const updated = planUpdate(this.#context.table.get(id) ?? record, request, this.#context).record;
      this.#context.table.update(updated);
      this.#context.events.publish(containerEvent(updated, 'update'));
      return { warnings: [] };
    });
  }

  /** Settles when it has ended and is started again neither by its policy nor by a restart that is under way. */
  async ended(id: string): Promise<void> {
    for (;;) {
      const gone = this.runner.gone(id);
      await gone;
      await this.#supervisor.settled(id);
      await this.#restarting.get(id);
      // A new run has a new end to wait for.
      if (!this.runner.isLive(id) || this.runner.gone(id) === gone) return;
    }
  }

  /** It is removed: nothing is remembered of it. */
  forget(id: string): void {
    this.#supervisor.reset(id);
  }

  locked<T>(nameOrId: string, task: (record: ContainerRecord) => Promise<T>): Promise<T> {
    const { id } = this.#context.table.find(nameOrId);
    return this.#parts.locks.run(id, () => {
      const record = this.#context.table.get(id);
      if (!record) throw new EngineError('not-found', `No such container: ${nameOrId}`);
      return task(record);
    });
  }

  /** The record once what is under way for the container (a start, a removal) is through. */
  afterPending(nameOrId: string): Promise<ContainerRecord> {
    return this.locked(nameOrId, (record) => Promise.resolve(record));
  }

  /** The record once nothing is left of a sandbox that has ended: its names on the host are free again. */
  async settled(id: string): Promise<ContainerRecord> {
    const { table } = this.#context;
    const before = table.get(id);
    if (before && !isRunning(before.state)) await this.runner.gone(id).catch(() => undefined);
    const record = table.get(id);
    if (!record) throw new EngineError('not-found', `No such container: ${id}`);
    return record;
  }

  async #restartByPolicy(id: string): Promise<void> {
    await this.#parts.locks.run(id, async () => {
      const record = this.#context.table.get(id);
      if (record?.state.status !== 'restarting' || this.#isEnding) return;
      try {
        await this.#run(record);
      } catch (error) {
        // As in Docker: one that cannot be started any more is left alone, and inspect says why.
        this.#context.logger.warn({ err: error, container: id }, 'cannot start a container again');
        this.#afterExit(id);
      }
    });
  }

  async #run(record: ContainerRecord): Promise<void> {
    const { host, machineDefaults, table } = this.#context;
    const plan = planResources(resourceRequest(record.hostConfig), host, machineDefaults);
    // An update may have changed what the wall is made of.
    await this.runner.start({
      ...record,
      facts: wallFacts(record.isolation, plan, host, record.facts.accelerator),
    });
    const started = table.get(record.id);
    if (started && hasProcesses(started.state)) this.#parts.onStarted(started);
  }

  #afterExit(id: string): void {
    const record = this.#context.table.get(id);
    if (!record || this.#restarting.has(id)) return;
    if (record.state.status === 'restarting') this.#supervisor.schedule(id, () => this.#restartByPolicy(id));
    else if (!isRunning(record.state)) this.#parts.onEnded(record);
  }

  /** On disk before the first effect: it is what the next daemon goes by. */
  #markStopped(record: ContainerRecord): void {
    const current = this.#context.table.get(record.id);
    if (current) this.#context.table.update({ ...current, isStoppedByHand: true });
  }

  async #signal(record: ContainerRecord, signal: number): Promise<void> {
    this.#context.events.publish(containerEvent(record, 'kill', { signal: String(signal) }));
    await this.runner.kill(record, signal);
  }

  /** A signal that is meant to end a paused container reaches it only when it runs again. */
  async #signalAndWake(record: ContainerRecord, signal: number): Promise<void> {
    await this.#signal(record, signal);
    if (this.#context.table.get(record.id)?.state.status === 'paused') await this.unpause(record.id);
  }

  /** `transition` for what was done to its processes. They may have ended meanwhile, and then nothing is to be told. */
  #changed(id: string, event: ContainerEvent, action: string): void {
    const record = this.#context.table.get(id);
    if (!record || !hasProcesses(record.state)) return;
    this.#apply(record, event);
    this.#context.events.publish(containerEvent(record, action));
  }

  #apply(record: ContainerRecord, event: ContainerEvent): void {
    this.#context.table.update({ ...record, state: nextState(record, event) });
  }
}

/** Docker's rule: the container's stop signal ends it for good; without one of its own, any signal that a client sends. */
function isStopSignal(record: ContainerRecord, signal: number): boolean {
  const own = record.config.StopSignal;
  return !own || signal === SIGKILL || parseSignal(own) === signal;
}

/** Docker's rule: what was ever started is judged anew by its policy, as if it had just ended. */
function isWantedAfterDaemonStart(record: ContainerRecord): boolean {
  const { state, restartCount, hostConfig } = record;
  if (state.status !== 'exited') return false;
  return wantsRestart(restartPolicy(hostConfig.RestartPolicy), {
    exitCode: state.exitCode,
    restartCount,
    isStoppedByHand: record.isStoppedByHand ?? false,
  });
}

/** The numbers are the guest's; what to do about them is ours to say. */
function explainRefusal(record: ContainerRecord, thrown: unknown): unknown {
  if (!(thrown instanceof EngineError) || thrown.code !== 'limit-exceeded') return thrown;
  const { message, details } = thrown;
  return new EngineError(
    'limit-exceeded',
    `Cannot update container ${record.id}: ${message}; stop it, update it, and its next machine is made for it`,
    { cause: thrown, details },
  );
}

export function isBeingRestarted(id: string): EngineError {
  return new EngineError('conflict', `Container ${id} is restarting, wait until the container is running`);
}
