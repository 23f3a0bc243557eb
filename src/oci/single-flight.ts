/** Progress and cancellation of one unit of work, as the work sees them. */
export interface Flight<Progress> {
  /** Aborted when the last one who waits has given up. */
  readonly signal: AbortSignal;
  report(progress: Progress): void;
}

interface RunningFlight<Result, Progress> {
  readonly result: Promise<Result>;
  readonly controller: AbortController;
  readonly listeners: Set<(progress: Progress) => void>;
  waiting: number;
  last: Progress | undefined;
}

export interface Passenger<Progress> {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

/**
 * One run per key, however many ask for it. Each may give up on its own; the work itself stops only when nobody waits any more, and
 * who asks after that starts a new run.
 */
export class SingleFlight<Result, Progress = never> {
  readonly #running = new Map<string, RunningFlight<Result, Progress>>();

  async join(
    key: string,
    passenger: Passenger<Progress>,
    start: (flight: Flight<Progress>) => Promise<Result>,
  ): Promise<{ result: Result; started: boolean }> {
    passenger.signal?.throwIfAborted();
    const known = this.#running.get(key);
    const flight = known ?? this.#launch(key, start);
    flight.waiting += 1;
    const { onProgress, signal } = passenger;
    if (onProgress) {
      flight.listeners.add(onProgress);
      if (flight.last !== undefined) onProgress(flight.last);
    }
    const { promise: aborted, reject } = Promise.withResolvers<never>();
    const onAbort = (): void => reject(signal?.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      return { result: await Promise.race([flight.result, aborted]), started: known === undefined };
    } finally {
      signal?.removeEventListener('abort', onAbort);
      if (onProgress) flight.listeners.delete(onProgress);
      flight.waiting -= 1;
      if (flight.waiting === 0) await this.#land(key, flight);
    }
  }

  #launch(key: string, start: (flight: Flight<Progress>) => Promise<Result>): RunningFlight<Result, Progress> {
    const controller = new AbortController();
    const listeners = new Set<(progress: Progress) => void>();
    const { promise, resolve, reject } = Promise.withResolvers<Result>();
    const flight: RunningFlight<Result, Progress> = {
      result: promise,
      controller,
      listeners,
      waiting: 0,
      last: undefined,
    };
    // Nobody may be waiting any more when it fails; that is no unhandled rejection.
    promise.catch(() => undefined);
    this.#running.set(key, flight);
    const report = (progress: Progress): void => {
      flight.last = progress;
      for (const listener of listeners) listener(progress);
    };
    void start({ signal: controller.signal, report })
      .then(resolve, reject)
      .finally(() => this.#forget(key, flight));
    return flight;
  }

  /** The last to give up waits until the work has cleaned up after itself. */
  async #land(key: string, flight: RunningFlight<Result, Progress>): Promise<void> {
    if (this.#running.get(key) !== flight) return;
    this.#forget(key, flight);
    flight.controller.abort();
    await flight.result.catch(() => undefined);
  }

  #forget(key: string, flight: RunningFlight<Result, Progress>): void {
    if (this.#running.get(key) === flight) this.#running.delete(key);
  }
}
