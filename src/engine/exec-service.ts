import { setTimeout as delay } from 'node:timers/promises';
import { isRunning } from '../core/container-state.ts';
import { EngineError, toEngineError } from '../core/errors.ts';
import { newId } from '../core/ids.ts';
import type { Sandbox } from '../sandbox/sandbox.ts';
import type { SandboxExit } from '../wire/shim.ts';
import { ClientStreams, parseDetachKeys, type ProcessPlace } from './client-streams.ts';
import type { ContainerRecord } from './container-record.ts';
import { containerEvent } from './container-event.ts';
import { isBeingRestarted } from './container-lifecycle.ts';
import type { EngineContext } from './engine-context.ts';
import type { Attachment, ExecRequest, ExecService, ExecStartOptions, ExecView, TerminalSize } from './engine.ts';
import { encodeStdoutText, execFailureExitCode, execFailureText, planExec } from './exec-plan.ts';

/** How long an ended one can still be asked about, as in Docker. */
const KEPT_MS = 5 * 60_000;
/** Of one container; when more are made, the oldest that never started are forgotten. */
const UNSTARTED_MAX = 256;
/** A client's resize may come before its start is through. */
const RESIZE_PATIENCE_MS = 10_000;

interface Exec {
  readonly id: string;
  readonly containerId: string;
  request: ExecRequest;
  state: ExecState;
  /** Settles once it runs, or never will. */
  readonly started: PromiseWithResolvers<void>;
}

type ExecState =
  | { readonly status: 'created' }
  | { readonly status: 'starting' }
  | { readonly status: 'running'; readonly pid: number }
  | { readonly status: 'ended'; readonly exitCode: number };

/** Use cases of further processes. They are in memory only: with the daemon go the connections of those who could ask about them. */
export class Execs implements ExecService {
  readonly #context: EngineContext;
  readonly #sandboxOf: (record: ContainerRecord) => Sandbox;
  readonly #execs = new Map<string, Exec>();
  readonly #detached = new AbortController();

  /** `sandboxOf` throws for a container that does not run. */
  constructor(context: EngineContext, sandboxOf: (record: ContainerRecord) => Sandbox) {
    this.#context = context;
    this.#sandboxOf = sandboxOf;
  }

  create(nameOrId: string, request: ExecRequest): Promise<{ id: string }> {
    const record = this.#context.table.find(nameOrId);
    requireRunning(record);
    if (request.command.length === 0) throw new EngineError('invalid-argument', 'No exec command specified');
    parseDetachKeys(request.detachKeys);
    this.#forgetUnstarted(record.id);
    const exec: Exec = {
      id: newId(),
      containerId: record.id,
      request,
      state: { status: 'created' },
      started: Promise.withResolvers(),
    };
    this.#execs.set(exec.id, exec);
    this.#publish(record, exec, `exec_create: ${request.command.join(' ')}`);
    return Promise.resolve({ id: exec.id });
  }

  async start(id: string, options: ExecStartOptions): Promise<Attachment | undefined> {
    const { exec, record } = this.#find(id);
    if (exec.state.status !== 'created') {
      throw new EngineError('conflict', `exec command ${id} has already run`);
    }
    requireRunning(record);
    const place = { sandbox: this.#sandboxOf(record), containerId: record.id, process: id };
    exec.state = { status: 'starting' };
    this.#publish(record, exec, `exec_start: ${exec.request.command.join(' ')}`);
    const { tty } = exec.request;
    const streams = options.detach ? undefined : this.#openStreams(exec, record);
    try {
      await this.#startProcess(exec, record, place, options, streams);
    } catch (thrown) {
      const error = toEngineError(thrown);
      const text = execFailureText(error);
      this.#end(exec, execFailureExitCode(error));
      if (!streams) throw new EngineError(error.code, text, { cause: error });
      // Docker's client shows what is in the stream; of a refusal it would show the number only.
      streams.output.end(encodeStdoutText(`${text}\r\n`, tty));
    }
    return streams;
  }

  async resize(id: string, size: TerminalSize): Promise<void> {
    const { exec, record } = this.#find(id);
    const sandbox = this.#sandboxOf(record);
    const late = new AbortController();
    await Promise.race([
      exec.started.promise,
      delay(RESIZE_PATIENCE_MS, undefined, { signal: late.signal, ref: false }).then(() => {
        throw new EngineError('timed-out', `timeout waiting for exec session ready: start exec ${id} first`);
      }),
    ]).finally(() => late.abort());
    await sandbox.resize(record.id, id, size);
  }

  inspect(id: string): ExecView {
    const { exec } = this.#find(id);
    const { state } = exec;
    return {
      id,
      containerId: exec.containerId,
      request: exec.request,
      isRunning: state.status === 'running' || state.status === 'starting',
      exitCode: state.status === 'ended' ? state.exitCode : null,
      pid: state.status === 'running' ? state.pid : 0,
    };
  }

  /** The daemon ends: stop watching, leave everything running. */
  detach(): void {
    this.#detached.abort();
  }

  #openStreams(exec: Exec, record: ContainerRecord): ClientStreams {
    const { stdin, tty, detachKeys } = exec.request;
    return new ClientStreams({
      tty,
      stdin,
      detachKeys,
      onDetach: () => this.#publish(record, exec, 'exec_detach'),
      onClose: () => undefined,
    });
  }

  /** Returns once the program runs, joined to its client from its first byte on. Its end is recorded when it comes. */
  async #startProcess(
    exec: Exec,
    record: ContainerRecord,
    place: ProcessPlace,
    options: ExecStartOptions,
    streams: ClientStreams | undefined,
  ): Promise<void> {
    const { sandbox, containerId, process } = place;
    const { stdout, stderr } = exec.request;
    const plan = planExec(record, exec.request, { ...options, hostCapabilities: this.#context.hostCapabilities });
    await sandbox.createProcess(containerId, process, plan);
    const source =
      streams && (stdout || stderr) ? await streams.openOutput(place, { from: 'start', stdout, stderr }) : undefined;
    // Asked for before the start, so that an end which comes at once cannot be forgotten before it is asked about.
    const exit = sandbox.wait(containerId, process, this.#detached.signal);
    exit.catch(() => undefined);
    try {
      const { pid } = await sandbox.start(containerId, process);
      exec.state = { status: 'running', pid };
    } catch (error) {
      // What the runtime itself wrote there is in the error.
      source?.on('error', () => undefined).destroy();
      throw error;
    }
    exec.started.resolve();
    // Whoever sees the output end asks for the exit code next: it must be there by then.
    const exited = this.#recordExit(exec, exit);
    if (!streams) return;
    if (source) streams.relay(source, exited);
    else void exited.then(() => streams.output.end());
    streams.joinInput(place, { keepOpen: false });
  }

  async #recordExit(exec: Exec, exit: Promise<SandboxExit>): Promise<void> {
    try {
      this.#exited(exec, (await exit).exitCode);
    } catch (error) {
      if (this.#detached.signal.aborted) return;
      this.#context.logger.warn({ err: error, exec: exec.id }, 'lost the shim of a running exec');
      this.#exited(exec, 137);
    }
  }

  #exited(exec: Exec, exitCode: number): void {
    this.#end(exec, exitCode);
    const record = this.#context.table.get(exec.containerId);
    if (record) this.#publish(record, exec, 'exec_die', { exitCode: String(exitCode) });
  }

  #end(exec: Exec, exitCode: number): void {
    exec.state = { status: 'ended', exitCode };
    exec.started.resolve();
    // What only a start needs is not kept: it may be as large as a request.
    exec.request = { ...exec.request, environment: [] };
    setTimeout(() => this.#execs.delete(exec.id), KEPT_MS).unref();
  }

  #forgetUnstarted(containerId: string): void {
    const unstarted = [...this.#execs.values()].filter(({ state }) => state.status === 'created');
    for (const exec of unstarted) {
      const record = this.#context.table.get(exec.containerId);
      if (!record || !isRunning(record.state)) this.#execs.delete(exec.id);
    }
    const ofContainer = unstarted.filter((exec) => exec.containerId === containerId);
    for (const { id } of ofContainer.slice(0, Math.max(0, ofContainer.length - UNSTARTED_MAX + 1))) {
      this.#execs.delete(id);
    }
  }

  #find(id: string): { exec: Exec; record: ContainerRecord } {
    const exec = this.#execs.get(id);
    const record = exec && this.#context.table.get(exec.containerId);
    if (!record) throw new EngineError('not-found', `No such exec instance: ${id}`);
    return { exec, record };
  }

  #publish(record: ContainerRecord, exec: Exec, action: string, attributes: Record<string, string> = {}): void {
    this.#context.events.publish(containerEvent(record, action, { execID: exec.id, ...attributes }));
  }
}

function requireRunning(record: ContainerRecord): void {
  if (record.state.status === 'paused') {
    throw new EngineError('conflict', `Container ${record.id} is paused, unpause the container before exec`);
  }
  if (record.state.status === 'restarting') throw isBeingRestarted(record.id);
  if (!isRunning(record.state)) throw new EngineError('conflict', `container ${record.id} is not running`);
}
