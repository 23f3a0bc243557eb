import { nextDelayMs, restartPolicy, wantsRestart } from '../core/restart-policy.ts';
import type { ContainerRecord } from './container-record.ts';

interface PendingRestart {
  /** Of `performance.now()`: the delay counts from the container's end. */
  readonly dueAtMs: number;
  readonly settled: PromiseWithResolvers<void>;
  timer: NodeJS.Timeout | undefined;
}

/** Decides at each end of a container whether its policy starts it again, and when; the start itself is its owner's. */
export class RestartSupervisor {
  readonly #lastDelayMs = new Map<string, number>();
  readonly #cancelled = new Set<string>();
  readonly #pending = new Map<string, PendingRestart>();
  #isEnding = false;

  /** A container has ended: true if it is to be started again. Then `schedule` follows once nothing is left of the ended run. */
  decide(record: ContainerRecord, exit: { readonly exitCode: number; readonly ranForMs: number }): boolean {
    const { id, restartCount } = record;
    if (this.#isEnding || this.#cancelled.has(id)) return false;
    const facts = { exitCode: exit.exitCode, restartCount, isStoppedByHand: record.isStoppedByHand ?? false };
    if (!wantsRestart(restartPolicy(record.hostConfig.RestartPolicy), facts)) return false;
    const delayMs = nextDelayMs(this.#lastDelayMs.get(id), exit.ranForMs);
    this.#lastDelayMs.set(id, delayMs);
    this.#pending.set(id, {
      dueAtMs: performance.now() + delayMs,
      settled: Promise.withResolvers(),
      timer: undefined,
    });
    return true;
  }

  /** Calls `start` when the delay is over. One that was cancelled meanwhile is not started. */
  schedule(id: string, start: () => Promise<void>): void {
    const pending = this.#pending.get(id);
    if (!pending || pending.timer || this.#isEnding) return;
    pending.timer = setTimeout(
      () => {
        void start().finally(() => this.#settle(id, pending));
      },
      Math.max(0, pending.dueAtMs - performance.now()),
    );
  }

  /** Settles when the pending restart was tried or cancelled; at once where none is pending. */
  settled(id: string): Promise<void> {
    return this.#pending.get(id)?.settled.promise ?? Promise.resolve();
  }

  /** Whatever its policy says: it stays ended, until it is started by hand. */
  cancel(id: string): void {
    this.#cancelled.add(id);
    const pending = this.#pending.get(id);
    if (!pending) return;
    clearTimeout(pending.timer);
    this.#settle(id, pending);
  }

  /** It is started by hand, or gone: nothing of its earlier runs counts any more. */
  reset(id: string): void {
    this.cancel(id);
    this.#cancelled.delete(id);
    this.#lastDelayMs.delete(id);
  }

  /** The daemon ends: nothing is started any more. What waits for its restart is found by the next one. */
  end(): void {
    this.#isEnding = true;
    for (const { timer } of this.#pending.values()) clearTimeout(timer);
  }

  #settle(id: string, pending: PendingRestart): void {
    if (this.#pending.get(id) === pending) this.#pending.delete(id);
    pending.settled.resolve();
  }
}
