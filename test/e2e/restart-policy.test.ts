import { setTimeout as delay } from 'node:timers/promises';
import test from 'ava';
import { TestDaemon } from '../support/daemon.ts';

const state = (daemon: TestDaemon, name: string): Promise<string> =>
  daemon
    .docker(['inspect', '-f', '{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}', name])
    .then(({ stdout }) => stdout.trim());

for (const wall of ['os', 'vm'] as const) {
  const create = (daemon: TestDaemon, name: string, policy: string, ...more: string[]): Promise<unknown> =>
    daemon.docker(['run', '-d', '--isolation', wall, '--restart', policy, '--name', name, ...more]);

  test.serial(
    `${wall}: on-failure tries so often and then gives up, with the count, the events and one log`,
    async (t) => {
      await using daemon = await TestDaemon.start(t);
      await daemon.load();
      const since = String(Math.floor(Date.now() / 1000) - 1);

      await create(daemon, 'aa', 'on-failure:2', 'busybox', 'sh', '-c', 'echo run; exit 3');
      const followed = daemon.docker(['logs', '-f', 'aa']);
      await daemon.until(['inspect', '-f', '{{.State.Status}} {{.RestartCount}}', 'aa'], /^exited 2/);
      const until = String(Math.floor(Date.now() / 1000) + 1);
      await delay(1_100); // `--until` must lie in the past for the stream to end by itself.
      const events = await daemon.docker([
        'events',
        ...['--since', since, '--until', until, '--filter', 'container=aa'],
        ...['--filter', 'event=start', '--filter', 'event=die', '--format', '{{.Action}}'],
      ]);

      t.is(await state(daemon, 'aa'), 'exited 3 2');
      t.is((await followed).stdout, 'run\nrun\nrun\n');
      t.is(events.stdout, 'start\ndie\n'.repeat(3));
    },
  );

  test.serial(`${wall}: a container between two runs is restarting, and stop ends that`, async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();

    await create(daemon, 'aa', 'always', 'busybox', 'false');
    const seen = await daemon.until(
      ['ps', '--filter', 'status=restarting', '--format', '{{.Status}}'],
      /Restarting \(1\)/,
    );
    await daemon.until(['inspect', '-f', '{{.RestartCount}}', 'aa'], /^[3-9]/);
    const exec = await daemon.docker(['exec', 'aa', 'true']);
    const removal = await daemon.docker(['rm', 'aa']);
    const stopped = await daemon.docker(['stop', 'aa']);
    const after = await state(daemon, 'aa');
    await delay(1_500);

    t.regex(seen, /ago/);
    t.not(exec.code, 0);
    t.regex(removal.stderr, /container is (restarting|running): stop the container before removing or force remove/);
    t.is(stopped.code, 0, stopped.stderr);
    t.regex(after, /^exited 1 \d+$/);
    t.is(await state(daemon, 'aa'), after);
  });

  test.serial(`${wall}: the container's stop signal ends it for good, another signal does not`, async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();
    const script = 'trap "exit 9" USR1 TERM; echo up; while :; do sleep 0.1; done';

    await create(daemon, 'aa', 'always', '--stop-signal', 'TERM', 'busybox', 'sh', '-c', script);
    await daemon.until(['logs', 'aa'], /up/);
    await daemon.docker(['kill', '-s', 'USR1', 'aa']);
    await daemon.until(['inspect', '-f', '{{.State.Status}} {{.RestartCount}}', 'aa'], /^running 1/);
    await daemon.until(['logs', 'aa'], /up\nup/);
    await daemon.docker(['kill', '-s', 'TERM', 'aa']);
    await daemon.until(['inspect', '-f', '{{.State.Status}}', 'aa'], /^exited/);
    await delay(500);
    const ended = await state(daemon, 'aa');
    await daemon.docker(['start', 'aa']);
    const anew = await state(daemon, 'aa');

    t.is(ended, 'exited 9 1');
    t.is(anew, 'running 0 0');
  });

  test.serial(`${wall}: the daemon's start brings back what its policy wants, and no more`, async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();

    await create(daemon, 'always-stopped', 'always', 'busybox', 'sleep', '1000');
    await create(daemon, 'unless-stopped', 'unless-stopped', 'busybox', 'sleep', '1000');
    await create(daemon, 'unless-running', 'unless-stopped', 'busybox', 'sleep', '1000');
    await create(daemon, 'none', 'no', 'busybox', 'sleep', '1000');
    await daemon.docker(['stop', '-t', '0', 'always-stopped', 'unless-stopped']);
    await daemon.stop();
    await daemon.start();
    await daemon.until(['ps', '--format', '{{.Names}}'], /always-stopped/);
    await daemon.until(['ps', '--format', '{{.Names}}'], /unless-running/);
    const running = await daemon.docker(['ps', '--format', '{{.Names}}']);

    t.deepEqual(running.stdout.trim().split('\n').sort(), ['always-stopped', 'unless-running']);
  });

  test.serial(`${wall}: a daemon that is killed while a container waits for its restart takes that up`, async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();

    await create(
      daemon,
      'aa',
      'always',
      'busybox',
      'sh',
      '-c',
      'echo >>/runs; [ $(wc -l </runs) -lt 7 ] || sleep 1000',
    );
    await daemon.until(['inspect', '-f', '{{.State.Status}} {{.RestartCount}}', 'aa'], /^restarting [45]/);
    await daemon.kill();
    await daemon.start();
    const final = await daemon.until(['inspect', '-f', '{{.State.Status}} {{.RestartCount}}', 'aa'], /^running 6/);

    t.is(final, 'running 6\n');
  });
}

test.serial('policies that contradict are refused with Docker’s words, and update changes one', async (t) => {
  await using daemon = await TestDaemon.start(t);
  await daemon.load();

  const refused = await daemon.docker(['create', '--rm', '--restart', 'always', 'busybox', 'true']);
  const direct = await daemon.docker(['create', '--restart', 'sometimes', 'busybox', 'true']);

  t.regex(refused.stderr, /conflicting options|can't create 'AutoRemove' container with restart policy/);
  t.regex(direct.stderr, /invalid restart policy/);
});
