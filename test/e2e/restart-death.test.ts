import { setTimeout as delay } from 'node:timers/promises';
import test from 'ava';
import { TestDaemon } from '../support/daemon.ts';

const ROUNDS = 12;

for (const wall of ['os', 'vm'] as const) {
  test.serial(
    `${wall}: a daemon that is killed again and again loses no run of a container that restarts`,
    async (t) => {
      await using daemon = await TestDaemon.start(t);
      await daemon.load();
      // Each run adds its number to a file, says it, and fails: what is said must be what was run.
      const script = 'n=$(cat /n 2>/dev/null || echo 0); n=$((n+1)); echo $n >/n; sync; echo run $n; sleep 0.2; exit 1';

      await daemon.docker([
        'run',
        '-d',
        '--isolation',
        wall,
        '--restart',
        'always',
        '--name',
        'aa',
        'busybox',
        'sh',
        '-c',
        script,
      ]);
      for (let round = 0; round < ROUNDS; round++) {
        await delay(Math.random() * 900);
        await daemon.kill();
        await delay(Math.random() * 300);
        await daemon.start();
      }
      await daemon.until(['logs', '--tail', '1', 'aa'], /run ([4-9]|\d\d)/);
      await daemon.docker(['stop', '-t', '0', 'aa']);
      const logs = (await daemon.docker(['logs', 'aa'])).stdout.trim().split('\n');
      const state = await daemon.docker(['inspect', '-f', '{{.State.Status}} {{.State.Restarting}}', 'aa']);
      await delay(500);
      const later = await daemon.docker(['inspect', '-f', '{{.State.Status}}', 'aa']);

      t.deepEqual(
        logs,
        logs.map((_line, index) => `run ${index + 1}`),
      );
      t.is(state.stdout, 'exited false\n');
      t.is(later.stdout, 'exited\n');
      t.is(await daemon.leaks(), '0 leaks\n');
    },
  );
}

test.serial('who waits for a container is told as Docker tells it, whatever its policy does next', async (t) => {
  await using daemon = await TestDaemon.start(t);
  await daemon.load();
  await daemon.docker([
    'create',
    '--isolation',
    'os',
    '--name',
    'aa',
    '--restart',
    'on-failure:1',
    'busybox',
    'sh',
    '-c',
    'sleep 0.3; exit 5',
  ]);

  const created = await daemon.docker(['wait', 'aa']);
  const next = daemon.docker(['wait', 'aa'], { timeoutMs: 20_000 });
  await daemon.docker(['start', 'aa']);
  const running = await daemon.docker(['wait', 'aa']);
  await daemon.until(['inspect', '-f', '{{.State.Status}} {{.RestartCount}}', 'aa'], /^exited 1/);
  const ended = await daemon.docker(['wait', 'aa']);

  t.is(created.stdout, '0\n');
  t.is((await next).code, 0);
  t.is(running.stdout, '5\n');
  t.is(ended.stdout, '5\n');
});
