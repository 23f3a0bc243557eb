import test from 'ava';
import { encodeState } from '../../src/api/codecs/container-state.ts';
import { encodeEvent } from '../../src/api/codecs/event.ts';
import { encodeHostConfig } from '../../src/api/codecs/host-config.ts';
import { humanDuration, statusText } from '../../src/api/codecs/status-text.ts';
import { formatTime } from '../../src/api/codecs/timestamp.ts';
import { compareVersions } from '../../src/api/api-version.ts';
import { parseMoment } from '../../src/engine/image-filters.ts';
import { timestampParameter } from '../../src/api/query.ts';

const SECOND = 1000;
const HOUR = 3600 * SECOND;
const DAY = 24 * HOUR;

test("spans of time read as Docker's go-units say them", (t) => {
  const expected: readonly (readonly [number, string])[] = [
    [0, 'Less than a second'],
    [999, 'Less than a second'],
    [SECOND, '1 second'],
    [59 * SECOND, '59 seconds'],
    [60 * SECOND, 'About a minute'],
    [119 * SECOND, 'About a minute'],
    [120 * SECOND, '2 minutes'],
    [HOUR, 'About an hour'],
    [1.4 * HOUR, 'About an hour'],
    [1.5 * HOUR, '2 hours'],
    [47 * HOUR, '47 hours'],
    [2 * DAY, '2 days'],
    [13 * DAY, '13 days'],
    [14 * DAY, '2 weeks'],
    [59 * DAY, '8 weeks'],
    [60 * DAY, '2 months'],
    [729 * DAY, '24 months'],
    [730 * DAY, '2 years'],
  ];
  t.deepEqual(
    expected.map(([ms]) => humanDuration(ms)),
    expected.map(([, text]) => text),
  );
});

test("each state has Docker's status text", (t) => {
  const times = { startedAtMs: 0, finishedAtMs: 3 * SECOND };
  const at = 5 * SECOND;
  t.is(statusText({ status: 'created' }, at), 'Created');
  t.is(statusText({ status: 'running', pid: 1, startedAtMs: 0 }, at), 'Up 5 seconds');
  t.is(statusText({ status: 'paused', pid: 1, startedAtMs: 0 }, at), 'Up 5 seconds (Paused)');
  t.is(
    statusText({ status: 'restarting', oomKilled: false, error: '', exitCode: 1, ...times }, at),
    'Restarting (1) 2 seconds ago',
  );
  const exited = { status: 'exited', exitCode: 3, oomKilled: false, error: '', ...times } as const;
  t.is(statusText(exited, at), 'Exited (3) 2 seconds ago');
  t.is(statusText({ status: 'removing', before: exited }, at), 'Removal In Progress');
  t.is(statusText({ status: 'dead', error: 'x' }, at), 'Dead');
});

test("inspect's state has Go's zero values for what is not known", (t) => {
  const created = encodeState({ status: 'created', error: 'no such program', exitCode: 127 });
  t.like(created, {
    Running: false,
    ExitCode: 127,
    Error: 'no such program',
    Pid: 0,
    StartedAt: '0001-01-01T00:00:00Z',
  });
  const exited = {
    status: 'exited',
    exitCode: 137,
    oomKilled: true,
    error: '',
    startedAtMs: 0,
    finishedAtMs: 1500,
  } as const;
  t.like(encodeState(exited), { OOMKilled: true, ExitCode: 137, FinishedAt: '1970-01-01T00:00:01.5Z', Dead: false });
  t.like(encodeState({ status: 'removing', before: exited }), { Status: 'removing', ExitCode: 137, OOMKilled: true });
  t.like(
    encodeState({ status: 'restarting', oomKilled: false, error: '', exitCode: 1, startedAtMs: 0, finishedAtMs: 1 }),
    {
      Running: true,
      Restarting: true,
    },
  );
});

test('times lose their trailing zeros, as Go writes them', (t) => {
  t.is(formatTime(0), '1970-01-01T00:00:00Z');
  t.is(formatTime(1_700_000_000_120), '2023-11-14T22:13:20.12Z');
  t.is(formatTime(10_000), '1970-01-01T00:00:10Z');
});

test('an event keeps its nanoseconds to the last digit', (t) => {
  const line = encodeEvent({
    type: 'network',
    action: 'create',
    actorId: 'n',
    attributes: {},
    timeNs: 1_764_022_000_123_456_789n,
  });
  t.true(line.endsWith('"timeNano":1764022000123456789}\n'));
  t.deepEqual(JSON.parse(line), {
    Type: 'network',
    Action: 'create',
    Actor: { ID: 'n', Attributes: {} },
    scope: 'local',
    time: 1_764_022_000,
    timeNano: Number(1_764_022_000_123_456_789n),
  });
});

test('the host configuration keeps what was asked, fills what was not, and tells the wall that stands', (t) => {
  const shown = encodeHostConfig(
    { Memory: 5, Binds: null, NetworkMode: 'default', Isolation: '', CapAdd: ['NET_ADMIN'], X: 1 },
    'os',
  );
  t.like(shown, {
    Memory: 5,
    Binds: null,
    NetworkMode: 'bridge',
    Isolation: 'os',
    CapAdd: ['NET_ADMIN'],
    X: 1,
    CapDrop: null,
  });
  t.deepEqual(shown['RestartPolicy'], { Name: 'no', MaximumRetryCount: 0 });
  t.is(shown['ShmSize'], 67_108_864);
  t.is(encodeHostConfig({ Privileged: true }, 'vm')['MaskedPaths'], null);
});

test('versions compare number by number', (t) => {
  t.true(compareVersions('1.9', '1.24') < 0);
  t.true(compareVersions('1.100', '1.51') > 0);
  t.is(compareVersions('1.51', '1.51.0'), 0);
  t.true(compareVersions('1', '1.24') < 0);
});

test('timestamps are seconds with a fraction to the nanosecond', (t) => {
  const parse = (text: string): bigint | undefined => timestampParameter(new URLSearchParams({ t: text }), 't');
  t.is(parse('1700000000.000000001'), 1_700_000_000_000_000_001n);
  t.is(parse('5.5'), 5_500_000_000n);
  t.is(parse('0'), undefined);
  t.is(parse(''), undefined);
});

test('moments in filters are timestamps, dates or spans before now', (t) => {
  t.is(parseMoment('1700000000'), 1_700_000_000);
  t.is(parseMoment('2023-11-14T22:13:20Z'), 1_700_000_000);
  t.true(Math.abs(Date.now() / 1000 - 5400 - parseMoment('1h30m')) < 5);
  t.throws(() => parseMoment('yesterday'), { message: "invalid filter 'until=yesterday'" });
});
