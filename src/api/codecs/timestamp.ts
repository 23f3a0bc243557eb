/** Go's zero time: what Docker shows for a moment that has not come. */
export const ZERO_TIME = '0001-01-01T00:00:00Z';

/** RFC 3339 with Go's nanosecond form: trailing zeros dropped, `Z` for UTC. */
export function formatTime(timeMs: number): string {
  const text = new Date(timeMs).toISOString();
  return text.replace(/\.?0*Z$/, 'Z');
}
