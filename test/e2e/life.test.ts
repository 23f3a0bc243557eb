import { setTimeout as delay } from 'node:timers/promises';
import test from 'ava';
import { TestDaemon } from '../support/daemon.ts';

test.serial('the events of a run come in Docker’s order, with Docker’s attributes', async (t) => {
  await using daemon = await TestDaemon.start(t);
  await daemon.load();

  for (const wall of ['vm', 'os']) {
    const since = String(Math.floor(Date.now() / 1000) - 1);
    await daemon.docker([
      'run',
      '--rm',
      '--isolation',
      wall,
      '--name',
      `events-${wall}`,
      '-l',
      'a=b',
      'busybox',
      'sh',
      '-c',
      'exit 3',
    ]);
    const until = String(Math.floor(Date.now() / 1000) + 1);
    await delay(1_100); // `--until` must lie in the past for the stream to end by itself.
    const events = await daemon.docker([
      'events',
      ...['--since', since, '--until', until, '--filter', `container=events-${wall}`],
      ...['--format', '{{.Action}} {{.Actor.Attributes.exitCode}} {{.Actor.Attributes.a}} {{.Actor.Attributes.image}}'],
    ]);
    const networks = await daemon.docker([
      'events',
      '--since',
      since,
      '--until',
      until,
      '--filter',
      'type=network',
      '--format',
      '{{.Action}} {{.Actor.Attributes.name}}',
    ]);

    t.deepEqual(events.stdout.trim().split('\n'), [
      'create <no value> b busybox',
      'attach <no value> b busybox',
      'start <no value> b busybox',
      'die 3 b busybox',
      'destroy <no value> b busybox',
    ]);
    t.true(networks.stdout.endsWith('connect bridge\ndisconnect bridge\n'));
  }
});

test.serial('a container that goes with its end survives a restart, and a rename finds it', async (t) => {
  await using daemon = await TestDaemon.start(t);
  await daemon.load();

  for (const wall of ['vm', 'os']) {
    await daemon.docker([
      'run',
      '-d',
      '--rm',
      '--isolation',
      wall,
      '--name',
      'old',
      'busybox',
      'sh',
      '-c',
      'echo run >>/runs; cat /runs; sleep 1000',
    ]);
    await daemon.until(['logs', 'old'], /run/);
    const restarted = await daemon.docker(['restart', '-t', '0', 'old']);
    const renamed = await daemon.docker(['rename', 'old', 'new']);
    // What a machine wrote for `--rm` is not flushed at its end: there a restart begins with the image's files (README, limits).
    const expected = wall === 'vm' ? 'run\nrun\n' : 'run\nrun\nrun\n';
    const logs = await daemon.until(['logs', 'new'], new RegExp(expected));
    await daemon.docker(['stop', '-t', '0', 'new']);
    const left = await daemon.until(['ps', '-aq'], /^$/);

    t.is(restarted.code, 0, restarted.stderr);
    t.is(renamed.code, 0);
    t.is(logs, expected);
    t.is(left, '');
  }
});

test.serial(
  'the name of a container that has gone with its end can be had at once, by a new one or by another',
  async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();

    for (const wall of ['vm', 'os']) {
      const run = (...flags: string[]) => daemon.docker(['run', '--isolation', wall, ...flags, 'busybox', 'true']);
      const codes = [(await run('--rm', '--name', 'taken')).code, (await run('--rm', '--name', 'taken')).code];
      const other = await daemon.docker(['create', '--isolation', wall, '--name', 'other', 'busybox', 'true']);
      codes.push((await run('--rm', '--name', 'taken')).code);
      const renamed = await daemon.docker(['rename', 'other', 'taken']);
      const removed = await daemon.docker(['rm', 'taken']);

      t.deepEqual(codes, [0, 0, 0]);
      t.is(other.code, 0, other.stderr);
      t.is(renamed.code, 0, renamed.stderr);
      t.is(removed.code, 0, removed.stderr);
    }
  },
);

test.serial('limits without a bound are handed on, and options without an effect are refused', async (t) => {
  await using daemon = await TestDaemon.start(t);
  await daemon.load();

  for (const wall of ['vm', 'os']) {
    const unlimited = await daemon.docker([
      'run',
      '--rm',
      '--isolation',
      wall,
      '--ulimit',
      'core=-1',
      'busybox',
      'sh',
      '-c',
      'ulimit -c',
    ]);
    const refused = await daemon.docker([
      'run',
      '--rm',
      '--isolation',
      wall,
      '--security-opt',
      'apparmor=nothing',
      'busybox',
      'true',
    ]);
    const confined = await daemon.docker([
      'run',
      '--rm',
      '--isolation',
      wall,
      '--security-opt',
      'no-new-privileges=true',
      'busybox',
      'grep',
      'NoNewPrivs',
      '/proc/self/status',
    ]);

    t.is(unlimited.stdout, 'unlimited\n', unlimited.stderr);
    t.is(refused.code, 125);
    t.regex(refused.stderr, /security option 'apparmor=nothing' is not supported/);
    t.regex(confined.stdout, /NoNewPrivs:\s+1/);
  }
});

test.serial(
  'several clients attached at once all see the output, and one started detached is attached to later',
  async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();

    for (const wall of ['vm', 'os']) {
      const script = 'read line; echo got $line; exit 6';
      await daemon.docker(['create', '-i', '--isolation', wall, '--name', wall, 'busybox', 'sh', '-c', script]);
      const reader = daemon.docker(['start', '-a', wall]);
      await daemon.until(['inspect', '-f', '{{.State.Status}}', wall], /running/);
      const writer = await daemon.docker(['attach', wall], { input: 'hello\n' });
      const first = await reader;
      await daemon.docker(['rm', wall]);

      t.deepEqual([first.code, first.stdout], [6, 'got hello\n']);
      t.deepEqual([writer.code, writer.stdout], [6, 'got hello\n']);
    }
  },
);
