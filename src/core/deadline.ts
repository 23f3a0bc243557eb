import { EngineError } from './errors.ts';

/** Node's timers end at once when they are longer: 24 days, which nobody waits out. */
export const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** Whether `promise` settles, however it does, before the time is over. It is not stopped when it does not. */
export async function settlesWithin(promise: Promise<unknown>, timeoutMs: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), Math.min(timeoutMs, LONGEST_TIMER_MS));
  });
  const settled = promise.then(
    () => true,
    () => true,
  );
  try {
    return await Promise.race([settled, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** The promise's own outcome, or `timed-out` with this message. */
export async function within<T>(promise: Promise<T>, timeoutMs: number, message: string): Promise<T> {
  if (await settlesWithin(promise, timeoutMs)) return await promise;
  throw new EngineError('timed-out', message);
}
