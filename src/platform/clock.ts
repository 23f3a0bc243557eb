/** Time as the daemon sees it; tests bring their own. */
export interface Clock {
  /** Milliseconds since 1970. */
  nowMs(): number;
  /** Nanoseconds since 1970. */
  realtimeNs(): bigint;
  /** CLOCK_MONOTONIC, nanoseconds. */
  monotonicNs(): number;
}

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  realtimeNs: () => {
    const now = performance.timeOrigin + performance.now();
    return BigInt(Math.floor(now * 1000)) * 1000n;
  },
  monotonicNs: () => Number(process.hrtime.bigint()),
};
