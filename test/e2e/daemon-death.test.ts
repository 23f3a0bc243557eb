import { setTimeout as delay } from 'node:timers/promises';
import test from 'ava';
import { run, TestDaemon } from '../support/daemon.ts';

for (const wall of ['vm', 'os'] as const) {
  test.serial(`${wall}: a container that ends while the daemon is dead has lost nothing`, async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();

    await daemon.docker([
      'run',
      '-d',
      '--isolation',
      wall,
      '--name',
      'cc',
      'busybox',
      'sh',
      '-c',
      'sleep 2; echo late; exit 7',
    ]);
    await daemon.kill();
    await delay(4_000); // The container must really end while no daemon is there.
    await daemon.start();
    const logs = await daemon.docker(['logs', 'cc']);
    const waited = await daemon.docker(['wait', 'cc']);
    await daemon.docker(['rm', 'cc']);

    t.is(logs.stdout, 'late\n');
    t.is(waited.stdout, '7\n');
  });

  test.serial(`${wall}: a container that goes on is taken up again, every line once`, async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();
    const script = 'i=0; while [ $i -lt 60 ]; do echo $i; i=$((i+1)); sleep 0.05; done; exit 5';

    await daemon.docker([
      'run',
      '-d',
      '--isolation',
      wall,
      '--name',
      'cc',
      '-p',
      '127.0.0.1:0:80',
      'busybox',
      'sh',
      '-c',
      script,
    ]);
    for (let round = 0; round < 3; round++) {
      await daemon.kill();
      await daemon.start();
    }
    const followed = await daemon.docker(['logs', '-f', 'cc']);
    const waited = await daemon.docker(['wait', 'cc']);
    await daemon.docker(['rm', 'cc']);

    t.deepEqual(
      followed.stdout.trim().split('\n'),
      Array.from({ length: 60 }, (_, index) => String(index)),
    );
    t.is(waited.stdout, '5\n');
  });
}

test.serial('a daemon killed at any moment of a start leaves nothing on the host', async (t) => {
  await using daemon = await TestDaemon.start(t);
  await daemon.load();

  for (let round = 0; round < 20; round++) {
    const wall = round % 2 === 0 ? 'os' : 'vm';
    const client = daemon.docker(['run', '--rm', '--isolation', wall, 'busybox', 'true'], { timeoutMs: 20_000 });
    await delay(Math.random() * (wall === 'os' ? 300 : 1_500));
    await daemon.kill();
    await client;
    await daemon.start();
  }
  const names = (await daemon.docker(['ps', '-aq'])).stdout.split('\n').filter(Boolean);
  if (names.length > 0) await daemon.docker(['rm', '-f', ...names]);

  t.is(await daemon.leaks(), '0 leaks\n');
});

test.serial('a shim that is killed takes its container with it, and the container says so', async (t) => {
  await using daemon = await TestDaemon.start(t);
  await daemon.load();

  for (const wall of ['vm', 'os']) {
    await daemon.docker(['run', '-d', '--isolation', wall, '--name', wall, 'busybox', 'sleep', '1000']);
    const id = (await daemon.docker(['inspect', '-f', '{{.Id}}', wall])).stdout.trim();
    const found = await run('pgrep', ['-f', `^[^ ]*bulkhead-shim ${daemon.execRoot}/s/${id.slice(0, 12)}$`]);
    process.kill(Number(found.stdout.trim()), 'SIGKILL');
    await daemon.docker(['wait', wall]);
    const state = await daemon.docker([
      'inspect',
      '-f',
      '{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}',
      wall,
    ]);
    await daemon.docker(['rm', wall]);

    t.regex(state.stdout, /^exited 137 the process that held the container was killed/);
    t.is(await daemon.leaks(), '0 leaks\n');
  }
});
