import test from 'ava';
import { TestDaemon, type Outcome } from '../support/daemon.ts';

for (const wall of ['os', 'vm'] as const) {
  const run = (daemon: TestDaemon, ...words: string[]): Promise<Outcome> =>
    daemon.docker(['run', '--rm', '--init', '--isolation', wall, ...words]);

  test.serial(`${wall}: --init is PID 1: it collects orphans, and ends as the program does`, async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();
    // The grandchild is nobody's when its parent has gone; a shell as PID 2 does not collect it.
    const script =
      'cat /proc/1/cmdline | tr "\\0" " "; echo; (sleep 0.1 & echo) ; sleep 1; grep -l "State:.Z" /proc/[0-9]*/status; exit 7';

    const outcome = await run(daemon, 'busybox', 'sh', '-c', script);
    const plain = await daemon.docker(['run', '--rm', '--isolation', wall, 'busybox', 'sh', '-c', 'echo $$']);
    const inner = await run(daemon, 'busybox', 'sh', '-c', 'echo $$');
    const readOnly = await run(daemon, '--read-only', 'busybox', 'echo', 'fine');
    const missing = await run(daemon, 'busybox', 'nonsense');
    const terminal = await run(daemon, '-t', 'busybox', 'tty');

    t.regex(outcome.stdout, /^\/sbin\/docker-init -- sh -c /);
    t.notRegex(outcome.stdout, /status\n/);
    t.is(outcome.code, 7);
    t.is(plain.stdout, '1\n');
    t.not(inner.stdout, '1\n');
    t.is(readOnly.stdout, 'fine\n', readOnly.stderr);
    t.is(missing.code, 127);
    t.regex(missing.stderr, /exec nonsense failed/);
    t.regex(terminal.stdout, /\/dev\/pts\/0/);
  });

  test.serial(
    `${wall}: with --init a program without a handler ends by its signal, which reaches it alone`,
    async (t) => {
      await using daemon = await TestDaemon.start(t);
      await daemon.load();
      await daemon.docker(['run', '-d', '--init', '--isolation', wall, '--name', 'aa', 'busybox', 'sleep', '1000']);
      await daemon.docker(['run', '-d', '--isolation', wall, '--name', 'bb', 'busybox', 'sleep', '1000']);

      const began = performance.now();
      await daemon.docker(['stop', '-t', '20', 'aa']);
      const tookMs = performance.now() - began;
      await daemon.docker(['kill', '-s', 'TERM', 'bb']); // PID 1 without a handler is not touched by it.
      const codes = await daemon.docker([
        'inspect',
        '-f',
        '{{.State.Status}} {{.State.ExitCode}} {{.Path}}',
        'aa',
        'bb',
      ]);

      t.true(tookMs < 10_000, String(tookMs));
      t.is(codes.stdout, 'exited 143 sleep\nrunning 0 sleep\n');
    },
  );
}
