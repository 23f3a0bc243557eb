import { isRunning, type ContainerState } from '../../core/container-state.ts';
import type { HealthReport } from '../../wire/shim-health.ts';
import { formatTime, ZERO_TIME } from './timestamp.ts';

/** `State` of inspect. Facts that a state does not have are Go's zero values. */
export function encodeState(state: ContainerState, health?: HealthReport): Record<string, unknown> {
  // What a container that is being removed was before is still true of it.
  const facts = state.status === 'removing' ? state.before : state;
  return {
    Status: state.status,
    Running: isRunning(state),
    Paused: state.status === 'paused',
    Restarting: state.status === 'restarting',
    OOMKilled: 'oomKilled' in facts && facts.oomKilled,
    Dead: facts.status === 'dead',
    Pid: 'pid' in facts ? facts.pid : 0,
    ExitCode: ('exitCode' in facts ? facts.exitCode : undefined) ?? 0,
    Error: ('error' in facts ? facts.error : undefined) ?? '',
    StartedAt: 'startedAtMs' in facts ? formatTime(facts.startedAtMs) : ZERO_TIME,
    FinishedAt: 'finishedAtMs' in facts ? formatTime(facts.finishedAtMs) : ZERO_TIME,
    ...(health ? { Health: encodeHealth(health) } : {}),
  };
}

function encodeHealth({ status, failingStreak, log }: HealthReport): Record<string, unknown> {
  return {
    Status: status,
    FailingStreak: failingStreak,
    Log: log.map(({ startedAtNs, endedAtNs, exitCode, output }) => ({
      Start: formatTime(startedAtNs / 1e6),
      End: formatTime(endedAtNs / 1e6),
      ExitCode: exitCode,
      Output: output,
    })),
  };
}
