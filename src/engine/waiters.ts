import { EngineError } from '../core/errors.ts';
import type { WaitCondition, WaitResult } from './engine.ts';

interface Waiter {
  readonly condition: WaitCondition;
  readonly settle: (result: WaitResult) => void;
}

/** Who waits for what of which container. */
export class Waiters {
  readonly #byContainer = new Map<string, Set<Waiter>>();
  readonly #lastExit = new Map<string, WaitResult>();

  add(containerId: string, condition: WaitCondition, signal: AbortSignal): Promise<WaitResult> {
    return new Promise((resolve, reject) => {
      const waiters = this.#byContainer.get(containerId) ?? new Set<Waiter>();
      this.#byContainer.set(containerId, waiters);
      const waiter: Waiter = {
        condition,
        settle: (result) => {
          leave();
          resolve(result);
        },
      };
      const leave = (): void => {
        waiters.delete(waiter);
        signal.removeEventListener('abort', onAbort);
        if (waiters.size === 0 && this.#byContainer.get(containerId) === waiters) this.#byContainer.delete(containerId);
      };
      const onAbort = (): void => {
        leave();
        reject(new EngineError('cancelled', 'the client stopped waiting'));
      };
      waiters.add(waiter);
      signal.addEventListener('abort', onAbort);
    });
  }

  exited(containerId: string, result: WaitResult): void {
    this.#lastExit.set(containerId, result);
    for (const waiter of [...(this.#byContainer.get(containerId) ?? [])]) {
      if (waiter.condition !== 'removed') waiter.settle(result);
    }
  }

  /** The container is gone: whoever still waits is answered with its last exit. */
  removed(containerId: string): void {
    const result = this.#lastExit.get(containerId) ?? { exitCode: 0, error: '' };
    for (const waiter of [...(this.#byContainer.get(containerId) ?? [])]) waiter.settle(result);
    this.#byContainer.delete(containerId);
    this.#lastExit.delete(containerId);
  }
}
