import { createHash, randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import test from 'ava';
import { TestDaemon } from '../support/daemon.ts';

for (const wall of ['vm', 'os'] as const) {
  test.serial(`${wall}: exec runs further programs, with streams, codes and settings of their own`, async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();
    const settings = ['--isolation', wall, '--name', 'box', '-e', 'COLOUR=red', '-e', 'SHAPE=round'];
    await daemon.docker(['run', '-d', ...settings, '-w', '/etc', 'busybox', 'sleep', '1000']);

    const result = await daemon.docker(['exec', 'box', 'sh', '-c', 'echo out; echo err >&2; exit 42']);
    const inherited = await daemon.docker(['exec', 'box', 'sh', '-c', 'echo $COLOUR $SHAPE; pwd; id -un']);
    const own = await daemon.docker([
      ...['exec', '-e', 'COLOUR=blue', '-w', '/tmp', '-u', 'ada', 'box'],
      ...['sh', '-c', 'echo $COLOUR $SHAPE; pwd; id -un; echo $HOME'],
    ]);
    const plain = await daemon.docker(['exec', 'box', 'grep', 'CapBnd', '/proc/self/status']);
    const privileged = await daemon.docker(['exec', '--privileged', 'box', 'grep', 'CapBnd', '/proc/self/status']);
    const terminal = await daemon.docker(['exec', '-t', 'box', 'sh', '-c', 'tty; echo $TERM']);

    t.deepEqual(result, { code: 42, stdout: 'out\n', stderr: 'err\n' });
    t.is(inherited.stdout, 'red round\n/etc\nroot\n');
    t.is(own.stdout, 'blue round\n/tmp\nada\n/home/ada\n');
    t.is(plain.stdout, 'CapBnd:\t00000000a80425fb\n');
    t.not(privileged.stdout, plain.stdout);
    t.regex(terminal.stdout, /^\/dev\/pts\/\d+\r\nxterm\r\n$/);
  });

  test.serial(`${wall}: what exec cannot start is told by text and code, and the container runs on`, async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();
    await daemon.docker(['run', '-d', '--isolation', wall, '--name', 'box', 'busybox', 'sleep', '1000']);

    const missing = await daemon.docker(['exec', 'box', 'nope']);
    const notExecutable = await daemon.docker(['exec', 'box', '/etc/passwd']);
    const noSuchUser = await daemon.docker(['exec', '-u', 'nosuch', 'box', 'true']);
    const detached = await daemon.docker(['exec', '-d', 'box', 'nope']);
    const after = await daemon.docker(['exec', 'box', 'true']);
    await daemon.docker(['kill', 'box']);
    const stopped = await daemon.docker(['exec', 'box', 'true']);

    const start = 'OCI runtime exec failed: exec failed: unable to start container process';
    t.is(missing.code, 127);
    t.is(missing.stdout, `${start}: exec: "nope": executable file not found in $PATH: unknown\r\n`);
    t.is(notExecutable.code, 126);
    t.is(notExecutable.stdout, `${start}: exec: "/etc/passwd": permission denied: unknown\r\n`);
    t.is(noSuchUser.code, 126);
    t.is(noSuchUser.stdout, 'unable to find user nosuch: no matching entries in passwd file\r\n');
    t.is(detached.code, 1);
    t.regex(detached.stderr, /executable file not found/);
    t.is(after.code, 0);
    t.is(stopped.code, 1);
    t.regex(stopped.stderr, /container [0-9a-f]{64} is not running/);
  });

  test.serial(
    `${wall}: 8 MiB of binary data go in and out of exec whole, and the end of stdin is the end`,
    async (t) => {
      await using daemon = await TestDaemon.start(t);
      await daemon.load();
      await daemon.docker(['run', '-d', '--isolation', wall, '--name', 'box', 'busybox', 'sleep', '1000']);
      const input = randomBytes(8 * 1024 * 1024);
      const digest = createHash('sha256').update(input).digest('hex');

      const text = randomBytes(4 * 1024 * 1024).toString('hex');

      const script = 'cat >/tmp/in; sha256sum </tmp/in; echo end';
      const there = await daemon.docker(['exec', '-i', 'box', 'sh', '-c', script], { input });
      const back = await daemon.docker(['exec', '-i', 'box', 'cat'], { input: text });

      t.is(there.stdout, `${digest}  -\nend\n`);
      t.is(back.stdout.length, text.length);
      t.true(back.stdout === text);
    },
  );

  test.serial(`${wall}: many at once, detached ones, ones with children left behind, and their events`, async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();
    await daemon.docker(['run', '-d', '--isolation', wall, '--name', 'box', 'busybox', 'sleep', '1000']);

    const numbers = [1, 2, 3, 4, 5, 6, 7, 8];
    const parallel = await Promise.all(
      numbers.map((number) => daemon.docker(['exec', 'box', 'sh', '-c', `echo ${number}; exit ${number}`])),
    );
    const detached = await daemon.docker(['exec', '-d', 'box', 'touch', '/tmp/mark']);
    await daemon.until(['exec', 'box', 'ls', '/tmp'], /mark/);
    const behind = await daemon.docker(['exec', 'box', 'sh', '-c', 'sleep 1000 & echo left'], { timeoutMs: 30_000 });
    const running = daemon.docker(['exec', 'box', 'sleep', '1000'], { timeoutMs: 60_000 });
    await daemon.until(['exec', 'box', 'ps'], /sleep 1000[^]*sleep 1000[^]*sleep 1000/);
    await daemon.docker(['kill', 'box']);
    const killed = await running;
    await delay(1_100); // The client's `--until` is a whole second: what is younger would be cut off.
    const events = await daemon.docker([
      ...['events', '--since', '5m', '--until', '0s', '--filter', 'container=box'],
      ...['--format', '{{.Action}} {{.Actor.Attributes.exitCode}}'],
    ]);

    t.deepEqual(
      parallel.map(({ code, stdout }) => [code, stdout]),
      numbers.map((number) => [number, `${number}\n`]),
    );
    t.deepEqual(detached, { code: 0, stdout: '', stderr: '' });
    t.deepEqual(behind, { code: 0, stdout: 'left\n', stderr: '' });
    t.is(killed.code, 137);
    t.regex(events.stdout, /^exec_create: touch \/tmp\/mark /m);
    t.regex(events.stdout, /^exec_start: touch \/tmp\/mark /m);
    for (const number of numbers) t.regex(events.stdout, new RegExp(`^exec_die ${number}$`, 'm'));
  });

  test.serial(`${wall}: our own client runs exec the same way`, async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();
    await daemon.docker(['run', '-d', '--isolation', wall, '--name', 'box', 'busybox', 'sleep', '1000']);
    const script = 'cat; echo $COLOUR; id -un; pwd; echo err >&2; exit 9';

    const flags = ['-i', '-e', 'COLOUR=blue', '-u', 'ada', '-w', '/tmp'];
    const result = await daemon.bulkhead(['exec', ...flags, 'box', 'sh', '-c', script], { input: 'in\n' });
    const missing = await daemon.bulkhead(['container', 'exec', 'box', 'nope']);
    const detached = await daemon.bulkhead(['exec', '-d', 'box', 'true']);
    const nobody = await daemon.bulkhead(['exec', 'nobody', 'true']);

    t.deepEqual(result, { code: 9, stdout: 'in\nblue\nada\n/tmp\n', stderr: 'err\n' });
    t.is(missing.code, 127);
    t.deepEqual(detached, { code: 0, stdout: '', stderr: '' });
    t.is(nobody.code, 3);
  });
}
