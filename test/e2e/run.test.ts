import { createHash, randomBytes } from 'node:crypto';
import { release } from 'node:os';
import test from 'ava';
import { TestDaemon } from '../support/daemon.ts';

const walls = ['vm', 'os'] as const;

for (const wall of walls) {
  const flags = ['--rm', '--isolation', wall];

  test.serial(`${wall}: a container tells its exit code, its output and its errors apart`, async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();

    const result = await daemon.docker(['run', ...flags, 'busybox', 'sh', '-c', 'echo out; echo err >&2; exit 42']);
    const notFound = await daemon.docker(['run', ...flags, 'busybox', 'nope']);
    const notExecutable = await daemon.docker(['run', ...flags, 'busybox', '/etc/passwd']);
    const noSuchUser = await daemon.docker(['run', ...flags, '-u', 'nosuch', 'busybox', 'true']);
    const left = await daemon.docker(['ps', '-aq']);

    t.deepEqual(result, { code: 42, stdout: 'out\n', stderr: 'err\n' });
    t.is(notFound.code, 127);
    t.regex(notFound.stderr, /exec: "nope": executable file not found in \$PATH/);
    t.is(notExecutable.code, 126);
    t.is(noSuchUser.code, 125);
    t.regex(noSuchUser.stderr, /unable to find user nosuch: no matching entries in passwd file/);
    t.is(left.stdout, '');
  });

  test.serial(
    `${wall}: the process has the environment, directory, user, host name and limits that were asked for`,
    async (t) => {
      await using daemon = await TestDaemon.start(t);
      await daemon.load();

      const { stdout } = await daemon.docker([
        'run',
        ...flags,
        ...[
          '-e',
          'COLOUR=blue',
          '-w',
          '/made/for/it',
          '-u',
          'ada',
          '--hostname',
          'lovelace',
          '--cpus',
          '1',
          '-m',
          '256m',
        ],
        ...['-l', 'a=b', '--entrypoint', 'sh', 'busybox', '-c'],
        'echo $COLOUR; pwd; id -un; id -G; hostname; grep lovelace /etc/hosts | wc -l; cat /etc/hostname; nproc',
      ]);
      const limit = await daemon.docker([
        'run',
        ...flags,
        ...['-m', '256m', 'busybox', 'sh', '-c'],
        'cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; uname -r; awk "/MemTotal/ {print \\$2}" /proc/meminfo',
      ]);

      const lines = stdout.trim().split('\n');
      t.deepEqual(lines.slice(0, 7), ['blue', '/made/for/it', 'ada', '1000 10', 'lovelace', '1', 'lovelace']);
      const [limitBytes, kernel, totalKib] = limit.stdout.trim().split('\n');
      t.is(limitBytes, String(256 * 1024 * 1024));
      t.is(kernel === release(), wall === 'os');
      if (wall === 'vm') t.is(lines[7], '1');
      t.true(wall === 'os' || (Number(totalKib) > 256 * 1024 && Number(totalKib) < 384 * 1024));
    },
  );

  test.serial(`${wall}: 64 MiB of binary stdin arrive whole, and its end is the end`, async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();
    const input = randomBytes(64 * 1024 * 1024);

    const { stdout } = await daemon.docker(['run', '-i', ...flags, 'busybox', 'sha256sum'], { input });

    t.is(stdout.split(' ')[0], createHash('sha256').update(input).digest('hex'));
  });

  test.serial(`${wall}: stop, kill, start again, wait, logs and inspect say the truth`, async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();
    const script = 'trap "echo bye; exit 3" TERM; echo up; while true; do sleep 0.1; done';

    await daemon.docker(['run', '-d', '--isolation', wall, '--name', 'one', 'busybox', 'sh', '-c', script]);
    // Before its trap is set, the first process of a pid namespace does not even notice SIGTERM.
    await daemon.until(['logs', 'one'], /up/);
    const stopped = await daemon.docker(['stop', 'one']);
    const afterStop = await daemon.docker([
      'inspect',
      '-f',
      '{{.State.Status}} {{.State.ExitCode}} {{.HostConfig.Isolation}}',
      'one',
    ]);
    await daemon.docker(['start', 'one']);
    await daemon.until(['logs', 'one'], /up\nbye\nup/);
    await daemon.docker(['kill', 'one']);
    const waited = await daemon.docker(['wait', 'one']);
    const logs = await daemon.docker(['logs', 'one']);
    const tail = await daemon.docker(['logs', '--tail', '1', '--timestamps', 'one']);
    const removed = await daemon.docker(['rm', 'one']);

    t.is(stopped.stdout, 'one\n');
    t.is(afterStop.stdout.trim(), `exited 3 ${wall}`);
    t.is(waited.stdout, '137\n');
    t.is(logs.stdout, 'up\nbye\nup\n');
    t.regex(tail.stdout, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z up\n$/);
    t.is(removed.stdout, 'one\n');
  });

  test.serial(`${wall}: our own client does the same`, async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();

    const result = await daemon.bulkhead(['run', '-i', ...flags, 'busybox', 'sh', '-c', 'cat; echo err >&2; exit 9'], {
      input: 'in\n',
    });
    const missing = await daemon.bulkhead(['run', ...flags, 'busybox', 'nope']);
    await daemon.bulkhead(['run', '-d', '--isolation', wall, '--name', 'two', 'busybox', 'sleep', '100']);
    const listed = await daemon.bulkhead(['ps']);
    const gone = await daemon.bulkhead(['rm', '-f', 'two']);
    const nothing = await daemon.bulkhead(['inspect', 'two']);

    t.deepEqual(result, { code: 9, stdout: 'in\n', stderr: 'err\n' });
    t.is(missing.code, 127);
    t.regex(listed.stdout, wall === 'vm' ? /vm/ : /os/);
    t.is(gone.code, 0);
    t.is(nothing.code, 3);
  });
}

test.serial('the wall is the daemon’s default unless named, and a wall that does not exist is refused', async (t) => {
  await using daemon = await TestDaemon.start(t, ['--isolation', 'os']);
  await daemon.load();

  const byDefault = await daemon.docker(['run', '--rm', 'busybox', 'uname', '-r']);
  const unknown = await daemon.docker(['run', '--rm', '--isolation', 'foo', 'busybox', 'true']);

  t.is(byDefault.stdout.trim(), release());
  t.is(unknown.code, 125);
  t.regex(unknown.stderr, /invalid isolation 'foo': choose vm .* or os/);
});
