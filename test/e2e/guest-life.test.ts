import test, { type ExecutionContext } from 'ava';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { run, TestDaemon, BULKHEAD } from '../support/daemon.ts';

/*
 * What needs no booted guest: the machine is real, its disk is empty, so its firmware waits for ever and no power button is heard.
 * One after the other: every test has a daemon of its own, and the machine that runs the tests has few CPUs.
 */

interface Guest {
  readonly state: string;
  readonly pid?: number;
  readonly reason: string;
  readonly network?: { readonly ipv4Address: string };
}

async function startWithEmptyImage(t: ExecutionContext): Promise<TestDaemon> {
  const daemon = await TestDaemon.start(t, ['--pool', '0']);
  const disk = join(daemon.root, 'empty.raw');
  await run('truncate', ['-s', '64M', disk]);
  const imported = await daemon.bulkhead(['vm', 'image', 'import', disk, 'test/empty']);
  t.is(imported.code, 0, imported.stderr);
  return daemon;
}

const launch = (daemon: TestDaemon, name: string, ...flags: string[]) =>
  daemon.bulkhead(['vm', 'launch', '--no-wait', '-m', '128M', ...flags, 'test/empty', name]);

async function inspect(daemon: TestDaemon, name: string): Promise<Guest> {
  const { stdout, stderr } = await daemon.bulkhead(['vm', 'info', '--format', 'json', name]);
  if (stdout === '') throw new Error(stderr);
  return JSON.parse(stdout) as Guest;
}

test.serial('a guest is launched, listed, found, started again and deleted, and nothing of it is left', async (t) => {
  await using daemon = await startWithEmptyImage(t);
  const launched = await launch(daemon, 'web');
  t.is(launched.code, 0, launched.stderr);
  t.is(launched.stdout, 'web\n');
  t.regex(launched.stderr, /start: web: \d vCPUs, 128 MiB, software emulation/);
  const { state, pid, network } = await inspect(daemon, 'web');
  t.is(state, 'running');
  t.notThrows(() => process.kill(pid ?? -1, 0));
  t.regex((await daemon.bulkhead(['vm', 'list'])).stdout, /^web +running +test\/empty .*\(emulated\)$/m);
  const twice = await daemon.bulkhead(['vm', 'start', 'web']);
  t.is(twice.code, 4);
  t.regex(twice.stderr, /guest web is running already/);
  t.is((await daemon.bulkhead(['vm', 'stop', '--force', 'web'])).code, 0);
  t.like(await inspect(daemon, 'web'), { state: 'stopped', reason: 'killed' });
  t.is((await daemon.bulkhead(['vm', 'start', 'web'])).code, 0);
  t.is((await inspect(daemon, 'web')).network?.ipv4Address, network?.ipv4Address);
  t.is((await daemon.bulkhead(['vm', 'delete', '--force', 'web'])).code, 0);
  t.is((await daemon.bulkhead(['vm', 'info', 'web'])).code, 3);
  t.deepEqual(await readdir(join(daemon.dataRoot, 'guests')), []);
});

test.serial('a guest that hears no power button runs on, and the error names --force', async (t) => {
  await using daemon = await startWithEmptyImage(t);
  await launch(daemon, 'deaf');
  const stopped = await daemon.bulkhead(['vm', 'stop', '--timeout', '1', 'deaf']);
  t.is(stopped.code, 124);
  t.regex(stopped.stderr, /deaf has not shut down within 1 s and runs on.*vm stop --force deaf/);
  t.is((await inspect(daemon, 'deaf')).state, 'running');
  t.is((await daemon.bulkhead(['vm', 'delete', 'deaf'])).code, 4);
  const asked = await daemon.bulkhead(['vm', 'exec', 'deaf', '--', 'true']);
  t.regex(asked.stderr, /no agent answers in guest deaf.*vm console deaf/);
  t.is((await daemon.bulkhead(['vm', 'delete', '-f', 'deaf'])).code, 0);
});

test.serial('a guest that is not ready in time is kept, and the launch fails with the time that it had', async (t) => {
  await using daemon = await startWithEmptyImage(t);
  const { code, stderr } = await daemon.bulkhead([
    'vm',
    'launch',
    '-m',
    '128M',
    '--timeout',
    '2',
    'test/empty',
    'slow',
  ]);
  t.is(code, 124);
  t.regex(stderr, /guest slow runs, but was not ready within 2 s/);
  t.is((await inspect(daemon, 'slow')).state, 'running');
  t.is((await daemon.bulkhead(['vm', 'delete', '-f', 'slow'])).code, 0);
});

test.serial('a guest can be killed while somebody waits for it to shut down or to get ready', async (t) => {
  await using daemon = await startWithEmptyImage(t);
  await launch(daemon, 'deaf');
  const stopping = daemon.bulkhead(['vm', 'stop', '--timeout', '60', 'deaf']);
  await delay(1000);
  t.is((await daemon.bulkhead(['vm', 'stop', '--force', 'deaf'])).code, 0);
  t.is((await stopping).code, 0);
  const launching = daemon.bulkhead(['vm', 'launch', '-m', '128M', 'test/empty', 'waiting']);
  const deadline = Date.now() + 10_000;
  while ((await daemon.bulkhead(['vm', 'list', '-q'])).stdout !== 'deaf\nwaiting\n' && Date.now() < deadline)
    await delay(50);
  t.is((await daemon.bulkhead(['vm', 'delete', '--force', 'waiting'])).code, 0);
  t.regex((await launching).stderr, /guest waiting ended while it booted/);
  await daemon.bulkhead(['vm', 'delete', '-f', 'deaf']);
});

test.serial('Ctrl-C in a launch leaves no guest, no machine and no file', async (t) => {
  await using daemon = await startWithEmptyImage(t);
  const client = spawn(BULKHEAD, [
    ...['-H', `unix://${daemon.socketPath}`],
    ...['vm', 'launch', '-m', '128M', 'test/empty', 'brief'],
  ]);
  for await (const text of client.stderr) if (String(text).includes('booting')) break;
  const exited = once(client, 'exit');
  client.kill('SIGINT');
  const [code] = (await exited) as [number];
  t.not(code, 0);
  const deadline = Date.now() + 10_000;
  while ((await daemon.bulkhead(['vm', 'list', '-q'])).stdout !== '' && Date.now() < deadline) await delay(50);
  t.is((await daemon.bulkhead(['vm', 'list', '-q'])).stdout, '');
  t.deepEqual(await readdir(join(daemon.dataRoot, 'guests')), []);
});

test.serial('a guest outlives its daemon; one that ended meanwhile is told as such', async (t) => {
  await using daemon = await startWithEmptyImage(t);
  await launch(daemon, 'lives');
  await launch(daemon, 'dies');
  const [lives, dies] = [await inspect(daemon, 'lives'), await inspect(daemon, 'dies')];
  await daemon.kill();
  process.kill(dies.pid ?? -1, 'SIGKILL');
  await daemon.start();
  t.like(await inspect(daemon, 'lives'), { state: 'running', pid: lives.pid });
  t.like(await inspect(daemon, 'dies'), { state: 'stopped', reason: 'ended while the daemon was away' });
  t.is((await daemon.bulkhead(['vm', 'delete', '-f', 'lives', 'dies'])).code, 0);
});

test.serial('autostart brings back what ended by itself, and not what somebody stopped', async (t) => {
  await using daemon = await startWithEmptyImage(t);
  for (const name of ['crashed', 'halted']) await launch(daemon, name, '--autostart');
  await launch(daemon, 'plain');
  t.is((await daemon.bulkhead(['vm', 'stop', '-f', 'halted'])).code, 0);
  const pids = [(await inspect(daemon, 'crashed')).pid, (await inspect(daemon, 'plain')).pid];
  await daemon.kill();
  for (const pid of pids) process.kill(pid ?? -1, 'SIGKILL');
  await daemon.start();
  const deadline = Date.now() + 10_000;
  while ((await inspect(daemon, 'crashed')).state !== 'running' && Date.now() < deadline) await delay(50);
  t.is((await inspect(daemon, 'crashed')).state, 'running');
  t.is((await inspect(daemon, 'halted')).state, 'stopped');
  t.is((await inspect(daemon, 'plain')).state, 'stopped');
  t.is((await daemon.bulkhead(['vm', 'restart', '-f', 'crashed'])).code, 0);
  t.not((await inspect(daemon, 'crashed')).pid, pids[0]);
  await daemon.bulkhead(['vm', 'delete', '-f', 'crashed', 'halted', 'plain']);
});

test.serial('a machine without an operating system can be given UEFI, and its console is heard', async (t) => {
  await using daemon = await startWithEmptyImage(t);
  t.is((await launch(daemon, 'uefi', '--firmware', 'uefi', '-m', '256M')).code, 0);
  const deadline = Date.now() + 60_000;
  const log = async (): Promise<string> => (await daemon.bulkhead(['vm', 'console', '--log', 'uefi'])).stdout;
  while (!(await log()).includes('BdsDxe') && Date.now() < deadline) await delay(500);
  t.regex(await log(), /BdsDxe/);
  await daemon.bulkhead(['vm', 'delete', '-f', 'uefi']);
});

test.serial('a daemon that is killed in the middle of a launch leaves a whole guest or none', async (t) => {
  await using daemon = await startWithEmptyImage(t);
  for (const afterMs of [20, 80, 140, 200, 260, 320, 400, 500]) {
    const launching = launch(daemon, 'cut');
    await delay(afterMs);
    await daemon.kill();
    await launching;
    await daemon.start();
    const { stdout } = await daemon.bulkhead(['vm', 'list', '-q']);
    t.true(['', 'cut\n'].includes(stdout), `after ${afterMs} ms: ${stdout}`);
    const state = stdout === '' ? 'none' : (await inspect(daemon, 'cut')).state;
    t.true(['none', 'running', 'stopped'].includes(state), `after ${afterMs} ms: ${state}`);
    t.is(await daemon.leaks(), '0 leaks\n', `after ${afterMs} ms`);
    await daemon.bulkhead(['vm', 'delete', '-f', 'cut']);
  }
});

test.serial(
  'a daemon that is killed while it starts, stops and deletes guests comes back with the truth',
  async (t) => {
    await using daemon = await startWithEmptyImage(t);
    await launch(daemon, 'cut');
    for (const [action, afterMs] of [
      ...[10, 60, 120, 200, 300].map((ms) => [['stop', '-f'], ms] as const),
      ...[10, 60, 120, 200, 300].map((ms) => [['start'], ms] as const),
      ...[10, 60, 120, 200, 300].map((ms) => [['restart', '-f'], ms] as const),
      ...[10, 60, 120, 200, 300].map((ms) => [['delete', '-f'], ms] as const),
    ]) {
      const when = `${action.join(' ')} after ${afterMs} ms`;
      const acting = daemon.bulkhead(['vm', ...action, 'cut']);
      await delay(afterMs);
      await daemon.kill();
      await acting;
      await daemon.start();
      const { stdout } = await daemon.bulkhead(['vm', 'list', '-q']);
      const guest = stdout === '' ? undefined : await inspect(daemon, 'cut');
      t.true([undefined, 'running', 'stopped'].includes(guest?.state), `${when}: ${guest?.state}`);
      t.is(guest?.state === 'running', guest?.pid !== undefined, when);
      t.is(await daemon.leaks(), '0 leaks\n', when);
      if (guest === undefined) await launch(daemon, 'cut');
    }
    await daemon.bulkhead(['vm', 'delete', '-f', 'cut']);
  },
);

test.serial('what cannot be is refused with the reason, before anything is made', async (t) => {
  await using daemon = await startWithEmptyImage(t);
  const userData = join(daemon.root, 'user-data');
  await writeFile(userData, 'packages: [vim]\n');
  for (const [flags, name, code, pattern] of [
    [['-m', '999G'], 'a', 1, /MiB of memory are more than this host's/],
    [['-c', '200'], 'a', 1, /200 vCPUs are more than/],
    [['-d', '1M'], 'a', 1, /below the 67108864 that test\/empty needs/],
    [['--cloud-init', userData], 'a', 1, /#cloud-config/],
    [[], 'a_b', 1, /cannot be a guest's name/],
  ] as const) {
    const outcome = await launch(daemon, name, ...flags);
    t.is(outcome.code, code, outcome.stderr);
    t.regex(outcome.stderr, pattern);
  }
  const unknown = await daemon.bulkhead(['vm', 'launch', 'nothing/here', 'a']);
  t.is(unknown.code, 3);
  t.regex(unknown.stderr, /no guest image nothing\/here/);
  t.is((await daemon.bulkhead(['vm', 'list', '-q'])).stdout, '');
});

test.serial(
  'a stopped guest has at its next start what it was set to; a running one says what it cannot do',
  async (t) => {
    await using daemon = await startWithEmptyImage(t);
    await launch(daemon, 'web', '-c', '1', '--max-cpus', '2', '--max-memory', '512M');
    const set = (...words: string[]) => daemon.bulkhead(['vm', 'set', 'web', ...words]);
    const above = await set('cpus=3');
    t.regex(
      above.stderr,
      /guest web: 3 vCPUs are more than it can have while it runs \(it has 1, the most is 2\).*--next-boot/,
    );
    t.regex((await set('memory=200M')).stderr, /in steps of 128 MiB; the next is 256M/);
    t.regex((await set('disk.root=32M')).stderr, /disks of guests only grow/);
    t.is((await set('cpus=none')).code, 2);
    t.regex((await set('disk.root=128M')).stdout, /^disk\.root: 128MiB \(no agent in the guest/);
    t.is((await set('--next-boot', 'cpus=3')).stdout, 'cpus: 3 (from its next start on)\n');
    await daemon.bulkhead(['vm', 'stop', '-f', 'web']);
    t.is((await set('memory=256M', 'disk.root=160M')).code, 0);
    await daemon.bulkhead(['vm', 'start', 'web']);
    const { pid } = await inspect(daemon, 'web');
    const args = (await readFile(`/proc/${pid}/cmdline`, 'utf8')).split('\0');
    t.true(args.includes('cpus=3,maxcpus=3') && args.some((one) => one.startsWith('size=256M')), args.join(' '));
    const disk = (await daemon.bulkhead(['vm', 'info', '--format', '{{.disk.path}}', 'web'])).stdout.trim();
    const info = await run(BULKHEAD, ['disk', 'info', '--allow-path', daemon.dataRoot, disk]);
    t.regex(info.stdout, /Virtual size: 160MiB[^]*In use by: the running machine web/);
    await daemon.bulkhead(['vm', 'delete', '-f', 'web']);
  },
);

test.serial('images that refer elsewhere are not taken in, and one that guests stand on is not removed', async (t) => {
  await using daemon = await startWithEmptyImage(t);
  const evil = join(daemon.root, 'evil.vmdk');
  await writeFile(evil, 'version=1\nRW 1 FLAT "/etc/shadow" 0\n');
  const refused = await daemon.bulkhead(['vm', 'image', 'import', evil, 'test/evil']);
  t.is(refused.code, 1);
  t.regex(refused.stderr, /extent is "\/etc\/shadow"/);
  t.deepEqual(await readdir(join(daemon.dataRoot, 'guest-images', 'ingest')), []);
  await launch(daemon, 'user');
  const used = await daemon.bulkhead(['vm', 'image', 'remove', 'test/empty']);
  t.is(used.code, 4);
  t.regex(used.stderr, /stand on test\/empty.*: user/);
  await daemon.bulkhead(['vm', 'delete', '-f', 'user']);
  t.is((await daemon.bulkhead(['vm', 'image', 'remove', 'test/empty'])).code, 0);
});
