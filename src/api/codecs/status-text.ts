import type { ContainerState } from '../../core/container-state.ts';
import type { HealthReport } from '../../wire/shim-health.ts';

/** Docker's words for a span of time (go-units HumanDuration). */
export function humanDuration(durationMs: number): string {
  const seconds = Math.trunc(durationMs / 1000);
  const minutes = Math.trunc(durationMs / 60_000);
  const hours = Math.trunc(durationMs / 3_600_000 + 0.5);
  if (seconds < 1) return 'Less than a second';
  if (seconds === 1) return '1 second';
  if (seconds < 60) return `${seconds} seconds`;
  if (minutes === 1) return 'About a minute';
  if (minutes < 60) return `${minutes} minutes`;
  if (hours === 1) return 'About an hour';
  if (hours < 48) return `${hours} hours`;
  if (hours < 24 * 7 * 2) return `${Math.trunc(hours / 24)} days`;
  if (hours < 24 * 30 * 2) return `${Math.trunc(hours / 24 / 7)} weeks`;
  if (hours < 24 * 365 * 2) return `${Math.trunc(hours / 24 / 30)} months`;
  return `${Math.trunc(durationMs / 3_600_000 / 24 / 365)} years`;
}

/** The STATUS column of ps: made by the server (moby daemon/container/state.go). */
export function statusText(state: ContainerState, nowMs: number, health?: HealthReport['status']): string {
  switch (state.status) {
    case 'created':
      return 'Created';
    case 'running':
      return `Up ${humanDuration(nowMs - state.startedAtMs)}${healthText(health)}`;
    case 'paused':
      return `Up ${humanDuration(nowMs - state.startedAtMs)} (Paused)`;
    case 'restarting':
      return `Restarting (${state.exitCode}) ${humanDuration(nowMs - state.finishedAtMs)} ago`;
    case 'exited':
      return `Exited (${state.exitCode}) ${humanDuration(nowMs - state.finishedAtMs)} ago`;
    case 'removing':
      return 'Removal In Progress';
    case 'dead':
      return 'Dead';
  }
}

function healthText(health: HealthReport['status'] | undefined): string {
  if (health === undefined) return '';
  return health === 'starting' ? ' (health: starting)' : ` (${health})`;
}
