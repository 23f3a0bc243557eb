import { hasProcesses } from '../core/container-state.ts';
import { settlesWithin, within } from '../core/deadline.ts';
import { EngineError, toEngineError } from '../core/errors.ts';
import { shortId } from '../core/ids.ts';
import { planPorts } from '../core/ports.ts';
import type { Sandbox } from '../sandbox/sandbox.ts';
import type { MachineTemplate, SandboxExit } from '../wire/shim.ts';
import type { Attachments } from './attachments.ts';
import { containerEvent, networkEvent } from './container-event.ts';
import { nextState, type ContainerRecord, type SandboxRecord } from './container-record.ts';
import { containerPaths } from './container-view.ts';
import type { EngineContext } from './engine-context.ts';
import { SandboxHost } from './sandbox-host.ts';
import { machineClassOf, planAssignment, planCreateContainer, planSandbox } from './sandbox-plan.ts';
import {
  assignMachine,
  beginningOf,
  endSandbox,
  groupPorts,
  isBootFailure,
  lostExit,
  type PlannedStart,
  type StartAttempt,
} from './sandbox-run.ts';
import type { Waiters } from './waiters.ts';

const INIT = 'init';
/** After a kill signal the kernel needs only moments; a machine that does not react is ended from outside. */
const KILL_DEADLINE_MS = 10_000;
/** The shim gives a machine's boot 30 s; beyond this the shim itself does not answer. */
const START_DEADLINE_MS = 60_000;
/** A shim answers its status from memory. One that cannot is stopped, or starved: its container is left alone. */
const STATUS_DEADLINE_MS = 5_000;

interface LiveContainer {
  readonly sandbox: Sandbox;
  /** Ends the watch for its exit. */
  readonly watch: AbortController;
  /** Settles when the exit is recorded and the sandbox is gone. */
  readonly gone: Promise<void>;
}

export interface RunnerParts {
  readonly attachments: Attachments;
  readonly waiters: Waiters;
  /** A run has ended: whether the container waits for its next start instead of being at its end. */
  readonly decideRestart: (record: ContainerRecord, exit: { exitCode: number; ranForMs: number }) => boolean;
  /** A run has ended, and that is on record; what it had on the host is still being given back. */
  readonly onExiting: (id: string) => void;
  /** Nothing is left of the run. */
  readonly onExited: (id: string) => void;
}

/** Starts containers, watches them, records how they end, and finds them again after the daemon's own death. */
export class ContainerRunner {
  readonly #context: EngineContext;
  readonly #host: SandboxHost;
  readonly #attachments: Attachments;
  readonly #waiters: Waiters;
  readonly #live = new Map<string, LiveContainer>();
  readonly #decideRestart: RunnerParts['decideRestart'];
  readonly #onExiting: RunnerParts['onExiting'];
  readonly #onExited: RunnerParts['onExited'];

  constructor(context: EngineContext, parts: RunnerParts) {
    this.#context = context;
    this.#host = new SandboxHost(context);
    this.#attachments = parts.attachments;
    this.#waiters = parts.waiters;
    this.#decideRestart = parts.decideRestart;
    this.#onExiting = parts.onExiting;
    this.#onExited = parts.onExited;
  }

  /** The running sandbox of a container; `wrong-state` when it has none. */
  sandboxOf(record: ContainerRecord): Sandbox {
    const live = this.#live.get(record.id);
    if (!live || !hasProcesses(record.state)) {
      throw new EngineError('wrong-state', `container ${record.id} is not running`);
    }
    return live.sandbox;
  }

  /** Settles when the container has ended and nothing of its sandbox is left. */
  gone(id: string): Promise<void> {
    return this.#live.get(id)?.gone ?? Promise.resolve();
  }

  /** Whether a run of it is watched. */
  isLive(id: string): boolean {
    return this.#live.has(id);
  }

  /** The caller holds the container's lock, and the sandbox of an earlier run is gone. */
  async start(record: ContainerRecord): Promise<void> {
    const attempt: StartAttempt = { sandbox: undefined };
    try {
      try {
        await this.#attempt(record, attempt, { fresh: false, boots: false });
      } catch (error) {
        if (!isBootFailure(error)) throw error;
        // Nothing of the container has run yet. What was prepared may have been at fault, or the host so crowded that an emulated kernel missed
        // its timer while it measured it: the second try takes no machine that waited, nor the saved one that failed.
        this.#context.logger.warn(
          { err: error, container: record.id },
          'the machine did not come up; trying once more',
        );
        await endSandbox(attempt.sandbox);
        await this.#giveBack(record.id);
        const boots = attempt.usedTemplate ?? false;
        if (boots) this.#context.templates?.reject(machineClassOf(record, this.#context));
        await this.#attempt(record, attempt, { fresh: true, boots });
      }
    } catch (error) {
      await this.#startFailed(
        record,
        attempt.sandbox,
        toEngineError(error, `cannot start container ${shortId(record.id)}`),
      );
    } finally {
      this.#context.pool?.refill();
    }
  }

  /** Sends a signal to the container's first process. */
  async kill(record: ContainerRecord, signal: number): Promise<void> {
    await this.sandboxOf(record).kill(record.id, INIT, signal);
  }

  async resize(record: ContainerRecord, size: { height: number; width: number }): Promise<void> {
    await this.sandboxOf(record).resize(record.id, INIT, size);
  }

  /** Kills what does not end by itself: first the process, then, after a deadline, the sandbox around it, whatever the guest does. */
  async killAndWait(record: ContainerRecord): Promise<void> {
    const live = this.#live.get(record.id);
    if (!live) return;
    const { logger } = this.#context;
    live.sandbox.kill(record.id, INIT, 9).catch((error: unknown) => {
      logger.debug({ err: error, container: record.id }, 'kill was refused; the process is probably gone');
    });
    if (await settlesWithin(live.gone, KILL_DEADLINE_MS)) return;
    logger.warn({ container: record.id }, 'the container does not react to SIGKILL; its sandbox is ended');
    await live.sandbox.stop(0).catch(() => undefined);
    await live.gone;
  }

  /**
   * After the daemon's start: takes up what still runs, records what ended meanwhile, clears what is left of the rest. One container that cannot
   * be brought in order must not keep the others from being served.
   */
  async reconcile(): Promise<void> {
    await Promise.all(
      this.#context.table.all().map(async (record) => {
        try {
          await this.#reconcileOne(record);
        } catch (error) {
          this.#context.logger.error({ err: error, container: record.id }, 'cannot take up a container again');
        }
      }),
    );
  }

  /** The daemon ends: stop watching, leave everything running. */
  detach(): void {
    for (const live of this.#live.values()) live.watch.abort();
  }

  /** `fresh` takes no machine that waits, `boots` no saved one. */
  async #attempt(
    record: ContainerRecord,
    attempt: StartAttempt,
    options: { fresh: boolean; boots: boolean },
  ): Promise<void> {
    const phases = [{ name: 'start-requested', monotonicNs: this.#context.clock.monotonicNs() }];
    attempt.sandbox = undefined;
    attempt.usedTemplate = false;
    const { sandbox: planned, pooled } = this.#host.reserve(record, options);
    // The intent goes to disk before the first effect, so that whatever is left after a crash has an owner.
    this.#context.table.update({ ...record, sandbox: planned });
    if (pooled) attempt.sandbox = pooled.sandbox;
    try {
      await this.#launch(record, { planned, pooled, phases, boots: options.boots }, attempt);
    } finally {
      if (pooled) await this.#context.pool?.handedOver(pooled);
    }
  }

  async #launch(record: ContainerRecord, start: PlannedStart, attempt: StartAttempt): Promise<void> {
    const { launcher, clock } = this.#context;
    const { planned, pooled, phases } = start;
    const mark = (name: string): void => void phases.push({ name, monotonicNs: clock.monotonicNs() });
    const { PortBindings: bindings, PublishAllPorts: publishAll } = record.hostConfig;
    const ports = planPorts(bindings ?? {}, Object.keys(record.config.ExposedPorts ?? {}), publishAll ?? false);
    const template = pooled || start.boots ? undefined : await this.#findTemplate(record);
    const input = await this.#host.prepare(record, planned, ports, template);
    mark('planned');
    attempt.usedTemplate = template !== undefined;
    const sandbox = pooled?.sandbox ?? (await launcher.launch(planSandbox(input)));
    attempt.sandbox = sandbox;
    if (pooled) await assignMachine(pooled.sandbox, planAssignment(input));
    mark('sandbox-ready');
    const run = async (): Promise<number> => {
      await sandbox.createContainer(record.id, planCreateContainer(input));
      mark('create-answered');
      await this.#attachments.connect(record.id, sandbox);
      const { pid } = await sandbox.start(record.id, INIT);
      mark('start-answered');
      return pid;
    };
    const pid = await within(
      run(),
      START_DEADLINE_MS,
      `its sandbox did not start it within ${START_DEADLINE_MS / 1000} s`,
    );
    // For a machine the host's number is that of the machine process: the guest's own numbers mean nothing out here.
    const status = ports.length > 0 || record.isolation === 'vm' ? await sandbox.status() : undefined;
    this.#started(
      record,
      { ...planned, ports: groupPorts(status?.ports ?? []), phases, ...beginningOf(record, pooled, template) },
      sandbox,
      status?.machinePid || pid,
    );
    // Who attached while it was starting gets its output from the beginning, too.
    await this.#attachments.connect(record.id, sandbox);
  }

  /** The next container of this size finds one, if this one does not. */
  async #findTemplate(record: ContainerRecord): Promise<MachineTemplate | undefined> {
    const { templates } = this.#context;
    if (!templates || record.isolation !== 'vm') return undefined;
    const size = machineClassOf(record, this.#context);
    const found = await templates.find(size);
    if (!found) void templates.ensure(size);
    return found;
  }

  async #reconcileOne(record: ContainerRecord): Promise<void> {
    const { sandbox: known } = record;
    if (!known) return;
    const { launcher, dataRoot } = this.#context;
    this.#host.reserveAgain(record, known);
    const sandbox = await within(
      launcher.adopt(record.id, known.runtimeDir),
      STATUS_DEADLINE_MS,
      'its shim does not answer',
    );
    const status = await sandbox?.status();
    const container = status?.containers[record.id];
    if (sandbox && container?.state === 'running') {
      const pid = status?.machinePid || container.pid;
      const ports = groupPorts(status?.ports ?? []);
      this.#started(record, { ...known, ports }, sandbox, pid, hasProcesses(record.state));
      this.#correctPause(record.id, container.paused);
      return;
    }
    if (hasProcesses(record.state)) {
      const { stateDir } = containerPaths(dataRoot, record.id);
      const exit = container?.exit ?? (await launcher.readExit(stateDir, record.id)) ?? lostExit();
      await this.#exited(record.id, sandbox, exit);
      return;
    }
    // The daemon died while it was starting this one: the client that asked is gone, nothing runs.
    await endSandbox(sandbox);
    await this.#giveBack(record.id);
  }

  /** The daemon may have died between a pause and its record. */
  #correctPause(id: string, isPaused: boolean): void {
    const record = this.#context.table.get(id);
    if (!record || (record.state.status === 'paused') === isPaused) return;
    this.#context.table.update({ ...record, state: nextState(record, { type: isPaused ? 'paused' : 'unpaused' }) });
  }

  #started(
    record: ContainerRecord,
    sandboxRecord: SandboxRecord,
    sandbox: Sandbox,
    pid: number,
    isAdopted = false,
  ): void {
    const { table, clock, events } = this.#context;
    const current = { ...(table.get(record.id) ?? record), sandbox: sandboxRecord };
    const running = isAdopted
      ? current
      : { ...current, state: nextState(current, { type: 'started', pid, atMs: clock.nowMs() }) };
    table.update(running);
    const watch = new AbortController();
    const gone = this.#watch(record.id, sandbox, watch.signal);
    gone.catch((error: unknown) => {
      this.#context.logger.error({ err: error, container: record.id }, 'cannot record how a container ended');
    });
    this.#live.set(record.id, { sandbox, watch, gone });
    if (isAdopted) return;
    const connected = networkEvent(running, 'connect');
    if (connected) events.publish(connected);
    events.publish(containerEvent(running, 'start'));
  }

  async #watch(id: string, sandbox: Sandbox, signal: AbortSignal): Promise<void> {
    let exit: SandboxExit;
    try {
      exit = await sandbox.wait(id, INIT, signal);
    } catch (error) {
      if (signal.aborted) return;
      const { stateDir } = containerPaths(this.#context.dataRoot, id);
      this.#context.logger.warn({ err: error, container: id }, 'lost the shim of a running container');
      exit = (await this.#context.launcher.readExit(stateDir, id)) ?? lostExit();
    }
    await this.#exited(id, sandbox, exit);
  }

  /**
   * Records the end and tells who waits for it, in any case, or they would wait for ever; then clears away. Ports are free when the shim tells
   * the exit; everything else that is cleared here is the container's own, and a next start of it waits for that.
   */
  async #exited(id: string, sandbox: Sandbox | undefined, exit: SandboxExit): Promise<void> {
    const { logger, clock } = this.#context;
    const phases = [{ name: 'exit-received', monotonicNs: clock.monotonicNs() }];
    const mark = (name: string): void => void phases.push({ name, monotonicNs: clock.monotonicNs() });
    try {
      this.#recordExit(id, exit);
    } finally {
      this.#attachments.end(id);
      this.#waiters.exited(id, { exitCode: exit.exitCode, error: exit.error });
      this.#onExiting(id);
      mark('exit-told');
      try {
        phases.push(...((await sandbox?.release()) ?? []));
        mark('released');
        await this.#giveBack(id, phases);
      } catch (error) {
        logger.error({ err: error, container: id }, 'cannot clear away what an ended container left');
      }
      this.#live.delete(id);
      this.#onExited(id);
    }
  }

  #recordExit(id: string, exit: SandboxExit): void {
    const { table, clock, events } = this.#context;
    const record = table.get(id);
    if (!record) return;
    const { exitCode, oomKilled, error } = exit;
    const finishedAtMs = exit.finishedAtNs > 0 ? Math.floor(exit.finishedAtNs / 1e6) : clock.nowMs();
    const startedAtMs = 'startedAtMs' in record.state ? record.state.startedAtMs : finishedAtMs;
    const exited = {
      ...record,
      state: nextState(record, { type: 'exited', exitCode, oomKilled, error, atMs: finishedAtMs }),
    };
    const isRestarting = this.#decideRestart(exited, { exitCode, ranForMs: finishedAtMs - startedAtMs });
    table.update({
      ...exited,
      ...(isRestarting
        ? { state: nextState(exited, { type: 'restartScheduled' }), restartCount: record.restartCount + 1 }
        : {}),
    });
    const durationSeconds = Math.max(0, Math.round((finishedAtMs - startedAtMs) / 1000));
    const facts = { exitCode: String(exitCode), execDuration: String(durationSeconds) };
    events.publish(containerEvent(record, 'die', facts));
    const disconnected = networkEvent(record, 'disconnect');
    if (disconnected) events.publish(disconnected);
  }

  async #startFailed(record: ContainerRecord, sandbox: Sandbox | undefined, error: EngineError): Promise<never> {
    const { table } = this.#context;
    await endSandbox(sandbox);
    const exitCode = error.code === 'command-not-found' ? 127 : error.code === 'command-not-executable' ? 126 : 128;
    const current = table.get(record.id) ?? record;
    table.update({ ...current, state: nextState(current, { type: 'startFailed', error: error.message, exitCode }) });
    await this.#giveBack(record.id);
    this.#attachments.end(record.id);
    this.#waiters.exited(record.id, { exitCode, error: '' });
    throw new EngineError(error.code, `failed to create task for container: ${error.message}`, { cause: error });
  }

  /** Nothing of the container's sandbox is left on the host, and then not in its record either. */
  async #giveBack(id: string, lastPhases: SandboxRecord['phases'] = []): Promise<void> {
    const { table } = this.#context;
    const sandbox = table.get(id)?.sandbox;
    if (!sandbox) return;
    await this.#host.giveBack(sandbox);
    // Read again: the container may have been renamed meanwhile.
    const current = table.get(id);
    if (!current) return;
    const { sandbox: _gone, ...rest } = current;
    const cleared = { name: 'cleared', monotonicNs: this.#context.clock.monotonicNs() };
    const all = [...sandbox.phases, ...lastPhases, cleared];
    table.update({
      ...rest,
      lastPhases: all.sort((first, second) => first.monotonicNs - second.monotonicNs),
      ...(sandbox.beginning ? { lastBeginning: sandbox.beginning } : {}),
    });
  }
}
