import { createServer } from 'node:net';
import { once } from 'node:events';
import test from 'ava';
import { TestDaemon, type Outcome } from '../support/daemon.ts';

const SERVER = 'mkdir -p /www; hostname >/www/index.html; echo ready; exec httpd -f -p 80 -h /www';

async function address(daemon: TestDaemon, name: string): Promise<string> {
  const { stdout } = await daemon.docker(['inspect', '-f', '{{.NetworkSettings.IPAddress}}', name]);
  return stdout.trim();
}

/** busybox's wget looks names up through libraries that a static program lacks: a request by hand then. */
function fetchFrom(daemon: TestDaemon, wall: string, ip: string): Promise<Outcome> {
  const request = `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 ${ip} 80 | tail -n 1`;
  return daemon.docker(['run', '--rm', '--isolation', wall, 'busybox', 'sh', '-c', request]);
}

test.serial('containers of both walls reach each other, and published ports are reached from the host', async (t) => {
  await using daemon = await TestDaemon.start(t);
  await daemon.load();

  for (const wall of ['vm', 'os']) {
    await daemon.docker([
      'run',
      '-d',
      '--isolation',
      wall,
      '--name',
      wall,
      '--hostname',
      `server-${wall}`,
      '-p',
      '0:80',
      'busybox',
      'sh',
      '-c',
      SERVER,
    ]);
  }
  for (const wall of ['vm', 'os']) {
    await daemon.until(['logs', wall], /ready/);
    const ip = await address(daemon, wall);
    const port = (
      await daemon.docker(['inspect', '-f', '{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}', wall])
    ).stdout.trim();
    const fromVm = await fetchFrom(daemon, 'vm', ip);
    const fromOs = await fetchFrom(daemon, 'os', ip);
    const byIpv4 = await fetch(`http://127.0.0.1:${port}/`);
    const byIpv6 = await fetch(`http://[::1]:${port}/`);

    t.is(fromVm.stdout, `server-${wall}\n`);
    t.is(fromOs.stdout, `server-${wall}\n`);
    t.is(await byIpv4.text(), `server-${wall}\n`);
    t.is(await byIpv6.text(), `server-${wall}\n`);
  }
  const both = await daemon.docker(['rm', '-f', 'vm', 'os']);
  t.is(both.code, 0);
});

test.serial(
  'a busy host port is an error at the start, and the container can be started once it is free',
  async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();
    const holder = createServer().listen(0, '127.0.0.1');
    await once(holder, 'listening');
    const port = String((holder.address() as { port: number }).port);

    const refused = await daemon.docker([
      'run',
      '-d',
      '--isolation',
      'os',
      '--name',
      'one',
      '-p',
      `127.0.0.1:${port}:80`,
      'busybox',
      'sleep',
      '100',
    ]);
    const status = await daemon.docker(['inspect', '-f', '{{.State.Status}}', 'one']);
    holder.close();
    await once(holder, 'close');
    const started = await daemon.docker(['start', 'one']);
    await daemon.docker(['rm', '-f', 'one']);

    t.is(refused.code, 125);
    t.regex(refused.stderr, new RegExp(`127\\.0\\.0\\.1:${port}.*in use`));
    t.is(status.stdout, 'created\n');
    t.is(started.code, 0);
  },
);

test.serial('without a network there is only the loopback', async (t) => {
  await using daemon = await TestDaemon.start(t);
  await daemon.load();

  for (const wall of ['vm', 'os']) {
    const { stdout } = await daemon.docker([
      'run',
      '--rm',
      '--isolation',
      wall,
      '--network',
      'none',
      'busybox',
      'sh',
      '-c',
      'ip -o link show up | wc -l; ip route | wc -l',
    ]);
    t.is(stdout, '1\n0\n', wall);
  }
});
