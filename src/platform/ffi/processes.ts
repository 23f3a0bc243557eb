import { z } from 'zod';
import { EngineError } from '../../core/errors.ts';
import { ReadableWatch } from './descriptors.ts';
import { closeHandle } from './kvm.ts';
import { nativeLibrary } from './library.ts';

export interface ProcessIdentity {
  readonly pid: number;
  /** Start since the host's boot, in units of 10 ms. With it a pid that was given out again is told from the process that is meant. */
  readonly startTimeTicks: number;
}

export interface ProcessFacts extends ProcessIdentity {
  readonly parentPid: number;
  /** R, S, D, T, Z …, see proc(5). */
  readonly state: string;
}

const factsSchema = z
  .object({ pid: z.number(), parent_pid: z.number(), start_time_ticks: z.number(), state: z.string() })
  .transform(({ pid, parent_pid, start_time_ticks, state }): ProcessFacts => ({
    pid,
    state,
    parentPid: parent_pid,
    startTimeTicks: start_time_ticks,
  }));

const heldSchema = z.object({ handle: z.number(), descriptor: z.number() }).and(factsSchema);

function processRequest(wanted: { pid: number; startTimeTicks?: number }): Record<string, unknown> {
  return {
    pid: wanted.pid,
    ...(wanted.startTimeTicks === undefined ? {} : { start_time_ticks: wanted.startTimeTicks }),
  };
}

/** What the kernel says of a process. Fails with `not-found` if there is none, or if it started at another time than given. */
export function readProcess(wanted: { pid: number; startTimeTicks?: number }): Promise<ProcessFacts> {
  return nativeLibrary().effect('bh_process_read', processRequest(wanted), factsSchema);
}

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (reason: EngineError) => void;
}

/** A process, child or not, held by a pidfd: what is done through it never hits another process that got the same pid. */
export class ProcessHandle implements Disposable {
  readonly identity: ProcessIdentity;
  readonly #handle: number;
  readonly #descriptor: number;
  readonly #waiters = new Set<Waiter>();
  #watch: ReadableWatch | undefined;
  #closed = false;

  private constructor(identity: ProcessIdentity, handle: number, descriptor: number) {
    this.identity = identity;
    this.#handle = handle;
    this.#descriptor = descriptor;
  }

  /** Fails with `not-found` if there is no such process, or if it started at another time than given. */
  static async open(wanted: { pid: number; startTimeTicks?: number }): Promise<ProcessHandle> {
    const held = await nativeLibrary().effect('bh_process_open', processRequest(wanted), heldSchema);
    return new ProcessHandle({ pid: held.pid, startTimeTicks: held.startTimeTicks }, held.handle, held.descriptor);
  }

  /** Sends a signal by number (15 is SIGTERM, 0 only asks); false if the process has ended and was reaped. */
  signal(number: number): boolean {
    if (this.#closed) throw this.#disposed();
    return nativeLibrary().call('bh_process_signal', this.#handle, number) === 1;
  }

  /**
   * Resolves when the process has ended, without a thread and without polling. Keeps this process alive meanwhile. Who is not its parent
   * does not learn its exit status. Rejects with `cancelled` when `signal` is aborted, `wrong-state` when this handle is disposed.
   */
  async exited({ signal }: { signal?: AbortSignal } = {}): Promise<void> {
    const cancelled = (): EngineError =>
      new EngineError('cancelled', `waiting for process ${this.identity.pid} was cancelled`);
    if (this.#closed) throw this.#disposed();
    if (signal?.aborted === true) throw cancelled();
    const ended = Promise.withResolvers<undefined>();
    const abort = (): void => ended.reject(cancelled());
    const waiter: Waiter = { resolve: () => ended.resolve(undefined), reject: ended.reject };
    this.#add(waiter);
    signal?.addEventListener('abort', abort);
    try {
      await ended.promise;
    } finally {
      signal?.removeEventListener('abort', abort);
      this.#remove(waiter);
    }
  }

  // The event loop takes one watch of a descriptor only, so all waiters share it.
  #add(waiter: Waiter): void {
    this.#waiters.add(waiter);
    this.#watch ??= ReadableWatch.open(this.#descriptor, () => {
      for (const { resolve } of this.#waiters) resolve();
      this.#unwatch();
    });
  }

  #remove(waiter: Waiter): void {
    this.#waiters.delete(waiter);
    if (this.#waiters.size === 0) this.#unwatch();
  }

  #unwatch(): void {
    this.#watch?.[Symbol.dispose]();
    this.#watch = undefined;
  }

  #disposed(): EngineError {
    return new EngineError('wrong-state', `the handle of process ${this.identity.pid} is disposed`);
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const { reject } of this.#waiters) reject(this.#disposed());
    this.#unwatch();
    closeHandle(this.#handle);
  }
}
