/** Docker's seven states. Facts that only some states have live in those states. Times are milliseconds since 1970. */
export type ContainerState =
  | { readonly status: 'created'; readonly error?: string; readonly exitCode?: number }
  | RunningState
  | PausedState
  | RestartingState
  | ExitedState
  | { readonly status: 'removing'; readonly before: ExitedState | CreatedState | DeadState }
  | DeadState;

type CreatedState = { readonly status: 'created'; readonly error?: string; readonly exitCode?: number };
type DeadState = { readonly status: 'dead'; readonly error: string };

export interface RunningState {
  readonly status: 'running';
  /** Of the container's first process: the host's number (os wall) or the machine process's (vm wall). */
  readonly pid: number;
  readonly startedAtMs: number;
}

export interface PausedState {
  readonly status: 'paused';
  readonly pid: number;
  readonly startedAtMs: number;
}

export interface RestartingState {
  readonly status: 'restarting';
  /** Of the run that has ended. */
  readonly exitCode: number;
  readonly oomKilled: boolean;
  readonly startedAtMs: number;
  readonly finishedAtMs: number;
  readonly error: string;
}

export interface ExitedState {
  readonly status: 'exited';
  readonly exitCode: number;
  readonly oomKilled: boolean;
  readonly startedAtMs: number;
  readonly finishedAtMs: number;
  /** Why there is no true exit code (machine died, kernel panicked …), or empty. */
  readonly error: string;
}

export type ContainerStatus = ContainerState['status'];

/** What happened to a container, in the past tense. */
export type ContainerEvent =
  | { readonly type: 'started'; readonly pid: number; readonly atMs: number }
  | { readonly type: 'startFailed'; readonly error: string; readonly exitCode: number }
  | {
      readonly type: 'exited';
      readonly exitCode: number;
      readonly oomKilled: boolean;
      readonly error: string;
      readonly atMs: number;
    }
  | { readonly type: 'paused' }
  | { readonly type: 'unpaused' }
  /** Its restart policy will start it again; there are no processes until then. */
  | { readonly type: 'restartScheduled' }
  /** Somebody stopped it, or it cannot be started: it stays ended. */
  | { readonly type: 'restartCancelled' }
  | { readonly type: 'removalStarted' }
  | { readonly type: 'removalFailed'; readonly error: string };

/** Docker's `State.Running`: also true of a container that its restart policy is about to start again. */
export function isRunning(state: ContainerState): boolean {
  return hasProcesses(state) || state.status === 'restarting';
}

/** True in the states in which processes exist. */
export function hasProcesses(state: ContainerState): state is RunningState | PausedState {
  return state.status === 'running' || state.status === 'paused';
}

/** The state after `event`, or undefined where that event is impossible in `state` (a fault of the caller). */
export function transition(state: ContainerState, event: ContainerEvent): ContainerState | undefined {
  switch (event.type) {
    case 'started':
      if (state.status !== 'created' && state.status !== 'exited' && state.status !== 'restarting') return undefined;
      return { status: 'running', pid: event.pid, startedAtMs: event.atMs };
    case 'startFailed':
      if (state.status === 'created') return { status: 'created', error: event.error, exitCode: event.exitCode };
      if (state.status === 'exited') return { ...state, error: event.error, exitCode: event.exitCode };
      if (state.status === 'restarting') {
        return { ...state, status: 'exited', oomKilled: false, error: event.error, exitCode: event.exitCode };
      }
      return undefined;
    case 'exited':
      if (!hasProcesses(state)) return undefined;
      return {
        status: 'exited',
        exitCode: event.exitCode,
        oomKilled: event.oomKilled,
        startedAtMs: state.startedAtMs,
        finishedAtMs: event.atMs,
        error: event.error,
      };
    case 'paused':
      return state.status === 'running' ? { ...state, status: 'paused' } : undefined;
    case 'unpaused':
      return state.status === 'paused' ? { ...state, status: 'running' } : undefined;
    case 'restartScheduled':
      return state.status === 'exited' ? { ...state, status: 'restarting' } : undefined;
    case 'restartCancelled':
      return state.status === 'restarting' ? { ...state, status: 'exited' } : undefined;
    case 'removalStarted':
      if (state.status === 'created' || state.status === 'exited' || state.status === 'dead') {
        return { status: 'removing', before: state };
      }
      return undefined;
    case 'removalFailed':
      return state.status === 'removing' ? { status: 'dead', error: event.error } : undefined;
  }
}
