import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { settlesWithin } from '../../core/deadline.ts';
import { EngineError, systemErrorCode } from '../../core/errors.ts';
import { startDetachedProgram } from '../../platform/detached-process.ts';
import { ProcessHandle, readProcess, type ProcessIdentity } from '../../platform/ffi/processes.ts';
import { AGENT_PORT, MONITOR_SOCKET, qemuArguments, type GuestMachineSpec } from './qemu-arguments.ts';
import { QEMU } from './qemu-host.ts';
import { QmpClient, type QmpEvent } from './qmp-client.ts';

/** From the program's start to its monitor's answer; a busy host needs some seconds of it. */
const MONITOR_TIMEOUT_MS = 30_000;
const MONITOR_RETRY_MS = 20;
/** Some systems want the power button twice (Incus does the same). */
const SECOND_PRESS_MS = 500;
const KILL_TIMEOUT_MS = 10_000;

interface AgentState {
  isOpen: boolean;
  readonly waiters: Set<() => void>;
}

interface MachineState {
  ending: GuestEnding;
  readonly listeners: Set<(event: QmpEvent) => void>;
}

/** Why a machine ended, as far as it said. */
export type GuestEnding = 'shutdown-by-guest' | 'stopped' | 'killed' | 'crashed' | 'unknown';

/**
 * A running machine process and the hold on it: its monitor and a pidfd. The process is a session of its own: it goes on when this process
 * ends, and is taken up again with `adopt`.
 */
export class GuestMachine implements Disposable {
  readonly identity: ProcessIdentity;
  /** Resolves once the process is gone. */
  readonly ended: Promise<GuestEnding>;
  readonly #process: ProcessHandle;
  readonly #monitor: QmpClient;
  readonly #agent: AgentState;
  readonly #state: MachineState;

  private constructor(parts: { process: ProcessHandle; monitor: QmpClient; agent: AgentState; state: MachineState }) {
    this.identity = parts.process.identity;
    this.#process = parts.process;
    this.#monitor = parts.monitor;
    this.#agent = parts.agent;
    this.#state = parts.state;
    // What the monitor said last, the cause among it, is read before its connection closes.
    this.ended = parts.process
      .exited()
      .then(() => parts.monitor.closed)
      .then(() => parts.state.ending);
    this.ended.catch(() => undefined); // Disposed: nobody holds it any more.
  }

  /**
   * Starts the process; `onSpawn` is told its identity at once, to be written down before anything else can go wrong.
   * A machine that cannot start is an error with QEMU's own words, and leaves no process.
   */
  static async start(
    spec: GuestMachineSpec,
    options: { readonly logPath: string; readonly onSpawn: (identity: ProcessIdentity) => void },
  ): Promise<GuestMachine> {
    await rm(spec.runtimeDir, { recursive: true, force: true });
    await mkdir(spec.runtimeDir, { recursive: true, mode: 0o700 });
    await mkdir(spec.emptyRoot, { recursive: true, mode: 0o755 });
    const sizeBefore = (await readFile(options.logPath).catch(() => Buffer.alloc(0))).length;
    const program = await startDetachedProgram(QEMU, qemuArguments(spec), options.logPath);
    const { startTimeTicks } = await readProcess({ pid: program.pid });
    options.onSpawn({ pid: program.pid, startTimeTicks });
    try {
      return await GuestMachine.#hold({ pid: program.pid, startTimeTicks }, spec.runtimeDir);
    } catch (error) {
      killIfThere(program.pid);
      const ending = await program.ended;
      const said = (await readFile(options.logPath, 'utf8')).slice(sizeBefore).trim().slice(-1000);
      throw new EngineError('internal', `the machine ${spec.name} did not start: ${said || ending}`, { cause: error });
    }
  }

  /** Takes up a machine of an earlier daemon; undefined if it has ended. */
  static async adopt(identity: ProcessIdentity, runtimeDir: string): Promise<GuestMachine | undefined> {
    try {
      return await GuestMachine.#hold(identity, runtimeDir);
    } catch (error) {
      if (error instanceof EngineError && error.code === 'not-found') return undefined;
      throw error;
    }
  }

  static async #hold(identity: ProcessIdentity, runtimeDir: string): Promise<GuestMachine> {
    const process = await ProcessHandle.open(identity);
    const agent: AgentState = { isOpen: false, waiters: new Set() };
    const state: MachineState = { ending: 'unknown', listeners: new Set() };
    try {
      const monitor = await connectMonitor(join(runtimeDir, MONITOR_SOCKET), identity, (event) => {
        observe(event, agent, state);
      });
      const machine = new GuestMachine({ process, monitor, agent, state });
      await machine.#readAgentState();
      return machine;
    } catch (error) {
      process[Symbol.dispose]();
      throw error;
    }
  }

  /** What QEMU says of itself; also the way to whatever has no method here. */
  async execute(command: string, parameters: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    return await this.#monitor.execute(command, parameters);
  }

  /** Whether such an event comes within this time. */
  async nextEvent(match: (event: QmpEvent) => boolean, timeoutMs: number): Promise<boolean> {
    const answer = Promise.withResolvers<boolean>();
    const listen = (event: QmpEvent): void => {
      if (match(event)) answer.resolve(true);
    };
    this.#state.listeners.add(listen);
    const timer = setTimeout(() => answer.resolve(false), timeoutMs);
    try {
      return await answer.promise;
    } finally {
      clearTimeout(timer);
      this.#state.listeners.delete(listen);
    }
  }

  /** Presses the power button and waits; false if the guest is still there after that time. */
  async powerDown(timeoutMs: number): Promise<boolean> {
    const gone = settlesWithin(this.ended, timeoutMs);
    await this.execute('system_powerdown');
    if (await settlesWithin(this.ended, Math.min(SECOND_PRESS_MS, timeoutMs))) return true;
    await this.execute('system_powerdown').catch(() => undefined);
    return await gone;
  }

  /** Ends the process, politely and then not. */
  async kill(): Promise<void> {
    if (this.#state.ending === 'unknown') this.#state.ending = 'killed';
    await this.execute('quit').catch(() => undefined);
    if (await settlesWithin(this.ended, 1000)) return;
    this.#process.signal(9);
    if (!(await settlesWithin(this.ended, KILL_TIMEOUT_MS)))
      throw new EngineError('internal', `process ${this.identity.pid} of the machine cannot be killed`);
  }

  /** Resolves when the guest's agent has opened its port: at once if it has. Rejects when the signal is aborted. */
  async agentOpened(signal: AbortSignal): Promise<void> {
    if (this.#agent.isOpen) return;
    const opened = Promise.withResolvers<undefined>();
    const wake = (): void => opened.resolve(undefined);
    const abort = (): void =>
      opened.reject(new EngineError('cancelled', "waiting for the guest's agent was cancelled"));
    this.#agent.waiters.add(wake);
    signal.addEventListener('abort', abort);
    if (signal.aborted) abort();
    try {
      await opened.promise;
    } finally {
      this.#agent.waiters.delete(wake);
      signal.removeEventListener('abort', abort);
    }
  }

  /** Called each time that the guest's agent opens its port, at every boot of the guest therefore, and now if it is open. */
  onAgentOpen(listen: () => void): void {
    this.#state.listeners.add(({ name, data }) => {
      if (name === 'VSERPORT_CHANGE' && data['id'] === AGENT_PORT && data['open'] === true) listen();
    });
    if (this.#agent.isOpen) listen();
  }

  get isAgentOpen(): boolean {
    return this.#agent.isOpen;
  }

  /** Ends the process of a machine that cannot be held because its monitor does not answer. */
  static async killUnheld(identity: ProcessIdentity): Promise<void> {
    try {
      using process = await ProcessHandle.open(identity);
      process.signal(9);
      await process.exited();
    } catch (error) {
      if (!(error instanceof EngineError) || error.code !== 'not-found') throw error;
    }
  }

  /** Lets go of the machine, which runs on. */
  [Symbol.dispose](): void {
    this.#monitor[Symbol.dispose]();
    this.#process[Symbol.dispose]();
  }

  async #readAgentState(): Promise<void> {
    const devices = (await this.execute('query-chardev')) as { label: string; 'frontend-open': boolean }[];
    if (devices.some((device) => device.label === 'agent' && device['frontend-open'])) this.#agent.isOpen = true;
  }
}

function observe(event: QmpEvent, agent: AgentState, state: MachineState): void {
  for (const listen of state.listeners) listen(event);
  if (event.name === 'VSERPORT_CHANGE' && event.data['id'] === AGENT_PORT) {
    agent.isOpen = event.data['open'] === true;
    if (agent.isOpen) for (const wake of agent.waiters) wake();
  }
  if (event.name === 'SHUTDOWN' && state.ending === 'unknown') {
    state.ending = event.data['guest'] === true ? 'shutdown-by-guest' : 'stopped';
  }
  if (event.name === 'GUEST_PANICKED') state.ending = 'crashed';
}

/** The socket is there a moment after the program has started. A program that has ended meanwhile is `not-found`. */
async function connectMonitor(
  path: string,
  identity: ProcessIdentity,
  onEvent: (event: QmpEvent) => void,
): Promise<QmpClient> {
  const deadline = Date.now() + MONITOR_TIMEOUT_MS;
  for (;;) {
    try {
      return await QmpClient.connect(path, onEvent);
    } catch (error) {
      // A process that nobody has waited for yet is as good as gone, though its pid is still there.
      if (['Z', 'X'].includes((await readProcess(identity)).state))
        throw new EngineError('not-found', `process ${identity.pid} has ended`, { cause: error });
      const isEarly = ['ENOENT', 'ECONNREFUSED'].includes(systemErrorCode(error));
      if (!isEarly || Date.now() > deadline)
        throw new EngineError('unavailable', `the monitor ${path} does not answer`, { cause: error });
      // The program is there and has not come as far; nothing tells of a socket's birth.
      await delay(MONITOR_RETRY_MS);
    }
  }
}

/** For a child that was not waited for yet: its pid is its own. */
function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (systemErrorCode(error) !== 'ESRCH') throw error;
  }
}
