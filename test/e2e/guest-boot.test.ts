import test from 'ava';
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { connect } from '../../src/client/index.ts';
import { run, TestDaemon, type Outcome } from '../support/daemon.ts';

/*
 * One whole life of a real guest, in software emulation: minutes, so there is one of it. The image is built once, from Debian packages.
 */

const BUILDER = resolve(import.meta.dirname, '../../vm-images/guest/build-debian-local');
const MINUTE_MS = 60_000;

test('debian/local boots, takes its seed, answers, outlives the daemon, shuts down and comes back', async (t) => {
  t.timeout(15 * MINUTE_MS);
  const built = await run(BUILDER, [], { timeoutMs: 10 * MINUTE_MS });
  t.is(built.code, 0, built.stderr);
  await using daemon = await TestDaemon.start(t, ['--pool', '0']);
  const userData = join(daemon.root, 'user-data');
  await writeFile(userData, '#cloud-config\nwrite_files:\n - path: /etc/from-seed\n   content: the seed was read\n');
  const inGuest = (...command: string[]): Promise<Outcome> => daemon.bulkhead(['vm', 'exec', 'web', '--', ...command]);

  const launched = await daemon.bulkhead(
    [
      'vm',
      'launch',
      'debian/local',
      'web',
      '-c',
      '2',
      '--max-cpus',
      '3',
      '-m',
      '1G',
      '-d',
      '3G',
      '--cloud-init',
      userData,
      '--timeout',
      '600',
    ],
    { timeoutMs: 11 * MINUTE_MS },
  );
  t.is(launched.code, 0, launched.stderr);
  t.is(launched.stdout, 'web\n');
  t.regex(launched.stderr, /cloud-init: done/);

  t.is((await inGuest('cat', '/etc/from-seed')).stdout, 'the seed was read');
  t.is((await inGuest('hostname')).stdout, 'web\n');
  t.is((await inGuest('nproc')).stdout, '2\n');
  t.regex((await inGuest('systemctl', 'is-system-running')).stdout, /^(running|starting)\n$/);
  // The disk was made larger than the image, and the file system has grown into it.
  t.true(Number((await inGuest('df', '--output=size', '-B1M', '/')).stdout.split('\n')[1]) > 2500);
  t.like(await inGuest('sh', '-c', 'echo out; echo err >&2; exit 7'), { code: 7, stdout: 'out\n', stderr: 'err\n' });
  t.is((await inGuest('no-such-program')).code, 127);
  t.is((await inGuest('sh', '-c', 'kill -9 $$')).code, 137);
  const address = (await daemon.bulkhead(['vm', 'info', '--format', '{{.network.ipv4Address}}', 'web'])).stdout.trim();
  t.regex((await inGuest('ip', '-brief', 'address')).stdout, new RegExp(` ${address}/`));

  const sent = join(daemon.root, 'sent');
  const back = join(daemon.root, 'back');
  const content = randomBytes(1_500_000);
  await writeFile(sent, content);
  t.like(await daemon.bulkhead(['vm', 'cp', sent, 'web:/root/']), { code: 0, stderr: '' });
  t.like(await daemon.bulkhead(['vm', 'cp', 'web:/root/sent', back]), { code: 0, stderr: '' });
  t.true(content.equals(await readFile(back)));
  t.regex((await daemon.bulkhead(['vm', 'cp', 'web:/nothing', back])).stderr, /\/nothing.*No such file/);

  // What it has is changed while it runs, up and down, and the guest itself says so.
  const set = (...wishes: string[]): Promise<Outcome> => daemon.bulkhead(['vm', 'set', 'web', ...wishes]);
  const memoryMib = async (): Promise<number> =>
    Number((await inGuest('awk', '/MemTotal/{print $2}', '/proc/meminfo')).stdout) / 1024;
  t.like(await set('cpus=3', 'memory=1280M', 'disk.root=4G'), {
    code: 0,
    stdout: 'disk.root: 4GiB, in the guest 3.99GiB\nmemory: 1.25GiB, in the guest 1.25GiB\ncpus: 3, in the guest 3\n',
  });
  t.is((await inGuest('nproc')).stdout, '3\n');
  t.true(Number((await inGuest('df', '--output=size', '-B1M', '/')).stdout.split('\n')[1]) > 3500);
  const more = await memoryMib();
  t.like(await set('cpus=2', 'memory=1G'), {
    code: 0,
    stdout: 'memory: 1GiB, in the guest 1GiB\ncpus: 2, in the guest 2\n',
  });
  t.is((await inGuest('nproc')).stdout, '2\n');
  t.true((await memoryMib()) < more - 200);
  t.regex((await set('disk.root=3G')).stderr, /would cut off the end of it/);
  t.regex((await set('memory=20G')).stderr, /more than it can have while it runs.*--next-boot/);

  // A console that is attached late shows what was said before, and takes input.
  using client = connect({ host: `unix://${daemon.socketPath}` });
  const console = await client.guests.attachConsole('web');
  let said = '';
  console.on('data', (chunk: Buffer) => (said += chunk.toString('latin1')));
  const heard = async (pattern: RegExp): Promise<boolean> => {
    const deadline = Date.now() + MINUTE_MS;
    while (!pattern.test(said) && Date.now() < deadline) await delay(100);
    return pattern.test(said);
  };
  t.true(await heard(/login: /));
  said = '';
  console.write('nobody-here\r');
  t.true(await heard(/nobody-here[^]*Password: /));
  console.destroy();

  const machineId = (await inGuest('cat', '/etc/machine-id')).stdout;
  await daemon.kill();
  await daemon.start();
  t.is((await inGuest('cat', '/etc/machine-id')).stdout, machineId);

  t.is((await daemon.bulkhead(['vm', 'stop', 'web'])).code, 0);
  t.regex((await daemon.bulkhead(['vm', 'list'])).stdout, /stopped \(the guest shut itself down\)/);
  t.regex((await daemon.bulkhead(['vm', 'console', '--log', 'web'])).stdout, /web login: /);

  t.is((await daemon.bulkhead(['vm', 'start', 'web'])).code, 0);
  const deadline = Date.now() + 5 * MINUTE_MS;
  let seen = await inGuest('cat', '/etc/machine-id');
  for (; seen.code !== 0 && Date.now() < deadline; seen = await inGuest('cat', '/etc/machine-id')) await delay(1000);
  t.is(seen.stdout, machineId);
  t.is((await daemon.bulkhead(['vm', 'delete', '--force', 'web'])).code, 0);
});
