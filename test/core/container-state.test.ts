import test from 'ava';
import {
  hasProcesses,
  isRunning,
  transition,
  type ContainerEvent,
  type ContainerState,
} from '../../src/core/container-state.ts';

const times = { startedAtMs: 1, finishedAtMs: 2 };
const states: Record<ContainerState['status'], ContainerState> = {
  created: { status: 'created' },
  running: { status: 'running', pid: 7, startedAtMs: 1 },
  paused: { status: 'paused', pid: 7, startedAtMs: 1 },
  restarting: { status: 'restarting', exitCode: 1, oomKilled: false, error: '', ...times },
  exited: { status: 'exited', exitCode: 3, oomKilled: false, error: '', ...times },
  removing: { status: 'removing', before: { status: 'created' } },
  dead: { status: 'dead', error: 'busy' },
};
const events: Record<ContainerEvent['type'], ContainerEvent> = {
  started: { type: 'started', pid: 9, atMs: 5 },
  startFailed: { type: 'startFailed', error: 'no such file', exitCode: 127 },
  exited: { type: 'exited', exitCode: 4, oomKilled: true, error: '', atMs: 6 },
  paused: { type: 'paused' },
  unpaused: { type: 'unpaused' },
  restartScheduled: { type: 'restartScheduled' },
  restartCancelled: { type: 'restartCancelled' },
  removalStarted: { type: 'removalStarted' },
  removalFailed: { type: 'removalFailed', error: 'busy' },
};

/** What may happen in which state; everything else is impossible. */
const possible: Record<ContainerEvent['type'], Partial<Record<ContainerState['status'], ContainerState['status']>>> = {
  started: { created: 'running', exited: 'running', restarting: 'running' },
  startFailed: { created: 'created', exited: 'exited', restarting: 'exited' },
  exited: { running: 'exited', paused: 'exited' },
  paused: { running: 'paused' },
  unpaused: { paused: 'running' },
  restartScheduled: { exited: 'restarting' },
  restartCancelled: { restarting: 'exited' },
  removalStarted: { created: 'removing', exited: 'removing', dead: 'removing' },
  removalFailed: { removing: 'dead' },
};

test('every pair of state and event is decided', (t) => {
  for (const [type, event] of Object.entries(events)) {
    for (const [status, state] of Object.entries(states)) {
      const expected = possible[type as ContainerEvent['type']][status as ContainerState['status']];
      t.is(transition(state, event)?.status, expected, `${type} in ${status}`);
    }
  }
});

test('an exit keeps when it began and says how it ended', (t) => {
  const running: ContainerState = { status: 'running', pid: 7, startedAtMs: 1 };

  t.deepEqual(transition(running, { type: 'exited', exitCode: 4, oomKilled: true, error: 'why', atMs: 6 }), {
    status: 'exited',
    exitCode: 4,
    oomKilled: true,
    startedAtMs: 1,
    finishedAtMs: 6,
    error: 'why',
  });
});

test('a restart that is cancelled leaves what was known of the exit', (t) => {
  const exited: ContainerState = { status: 'exited', exitCode: 137, oomKilled: true, error: 'why', ...times };

  const restarting = transition(exited, { type: 'restartScheduled' });

  t.like(restarting, { status: 'restarting', exitCode: 137, oomKilled: true });
  t.deepEqual(restarting && transition(restarting, { type: 'restartCancelled' }), exited);
});

test('running, paused and restarting count as running, as in Docker; only the first two have processes', (t) => {
  const running = Object.values(states).filter(isRunning);
  const live = Object.values(states).filter(hasProcesses);

  t.deepEqual(running.map(({ status }) => status).sort(), ['paused', 'restarting', 'running']);
  t.deepEqual(live.map(({ status }) => status).sort(), ['paused', 'running']);
});
