import test from 'ava';
import { once } from 'node:events';
import { startFakeDaemon } from './fake-daemon.ts';

test('docker version shows both sides, and the server is an engine of Docker 28 with our name', async (t) => {
  await using daemon = await startFakeDaemon();
  const { stdout, exitCode } = await daemon.docker(['version']);
  t.is(exitCode, 0);
  t.regex(stdout, /Server: Bulkhead/);
  t.regex(stdout, /Version:\s+28\.5\.2\+bulkhead-0\.1\.0/);
  t.regex(stdout, /API version:\s+1\.51 \(minimum version 1\.24\)/);
});

test('docker info names the walls, the accelerator and the default', async (t) => {
  await using daemon = await startFakeDaemon();
  const { stdout, exitCode, stderr } = await daemon.docker([
    'info',
    '--format',
    '{{.DefaultRuntime}} {{json .Runtimes}}',
  ]);
  t.is(exitCode, 0, stderr);
  t.is(stdout.split(' ')[0], 'vm');
  t.regex(stdout, /"runc"/);
  const plain = await daemon.docker(['info']);
  t.is(plain.exitCode, 0, plain.stderr);
  t.regex(plain.stdout, /Default Isolation: vm|Isolation: vm|Default Runtime: vm/);
});

test('docker run attaches, then waits, then starts, and brings both streams and the exit code', async (t) => {
  await using daemon = await startFakeDaemon();
  const result = await daemon.docker(['run', '--rm', 'busybox', 'sh', '-c', 'echo out; echo err >&2; exit 7']);
  t.deepEqual(result, { exitCode: 7, stdout: 'out\n', stderr: 'err\n' });
  t.deepEqual(daemon.engine.calls, ['create', 'attach', 'wait removed', 'start']);
});

test('docker run -i hands stdin through to its end and brings back every byte', async (t) => {
  await using daemon = await startFakeDaemon();
  const sent = 'x'.repeat(3_000_000);
  const { stdout, exitCode } = await daemon.docker(['run', '-i', '--rm', 'busybox', 'cat'], { stdin: sent });
  t.is(exitCode, 0);
  t.true(stdout === sent);
});

test('docker run -i keeps sending output after the client has ended stdin', async (t) => {
  await using daemon = await startFakeDaemon();
  const script = 'cat >/dev/null; sleep 0.3; echo after';
  const { stdout } = await daemon.docker(['run', '-i', '--rm', 'busybox', 'sh', '-c', script], { stdin: 'in' });
  t.is(stdout, 'after\n');
});

test('a command that is missing, or cannot be executed, or an image that is not there, give 127, 126 and 125', async (t) => {
  await using daemon = await startFakeDaemon();
  const missing = await daemon.docker(['run', '--rm', 'busybox', 'no-such-program']);
  t.is(missing.exitCode, 127);
  t.regex(missing.stderr, /executable file not found in \$PATH/);
  const forbidden = await daemon.docker(['run', '--rm', 'busybox', '/etc/passwd']);
  t.is(forbidden.exitCode, 126);
  const conflicting = await daemon.docker(['run', '--name', 'x!', 'busybox', 'true']);
  t.is(conflicting.exitCode, 125);
  t.regex(conflicting.stderr, /Invalid container name \(x!\), only \[a-zA-Z0-9\]\[a-zA-Z0-9_\.-\] are allowed/);
});

test('docker ps shows the server-made status, names and ports, as a table and as JSON', async (t) => {
  await using daemon = await startFakeDaemon();
  await daemon.docker(['run', '-d', '--name', 'web', 'busybox', 'sleep', '60']);
  const table = await daemon.docker(['ps', '--no-trunc']);
  t.regex(table.stdout, /"sleep 60"\s+.*Up .*0\.0\.0\.0:32768->80\/tcp.*web/);
  const json = await daemon.docker(['ps', '--format', 'json']);
  const row = JSON.parse(json.stdout) as Record<string, string>;
  t.like(row, { Names: 'web', Image: 'busybox', State: 'running' });
  await daemon.docker(['kill', 'web']);
  const all = await daemon.docker(['ps', '-a', '--format', '{{.Status}}']);
  t.regex(all.stdout, /^Exited \(137\) (Less than a second|\d+ seconds?) ago\n$/);
});

test('docker inspect echoes the configuration and tells the wall', async (t) => {
  await using daemon = await startFakeDaemon();
  const created = await daemon.docker([
    'create',
    '--name',
    'box',
    '-m',
    '64m',
    '-l',
    'k=v',
    '-e',
    'A=1',
    '--isolation',
    'vm',
    'busybox',
    'true',
  ]);
  t.is(created.exitCode, 0, created.stderr);
  const { stdout } = await daemon.docker(['inspect', 'box']);
  const [inspected] = JSON.parse(stdout) as [Record<string, Record<string, unknown>>];
  t.like(inspected, {
    Name: '/box',
    State: { Status: 'created', StartedAt: '0001-01-01T00:00:00Z' },
    HostConfig: { Memory: 64 * 1024 * 1024, Isolation: 'vm', CapAdd: null, Dns: [], NetworkMode: 'bridge' },
    Config: { Labels: { k: 'v' }, Env: ['A=1'], Cmd: ['true'], Entrypoint: null },
    Bulkhead: { wall: 'vm', accelerator: 'tcg', driver: 'qemu', vcpus: 2, memoryBytes: 256 * 1024 * 1024 },
  });
});

test('docker stop, start, restart, rename, wait, rm and prune find their way', async (t) => {
  await using daemon = await startFakeDaemon();
  await daemon.docker(['run', '-d', '--name', 'box', 'busybox', 'sleep', '60']);
  t.is((await daemon.docker(['rm', 'box'])).exitCode, 1);
  t.is((await daemon.docker(['restart', 'box'])).stdout, 'box\n');
  t.is((await daemon.docker(['rename', 'box', 'crate'])).exitCode, 0);
  t.is((await daemon.docker(['stop', 'crate'])).stdout, 'crate\n');
  t.is((await daemon.docker(['wait', 'crate'])).stdout, '143\n');
  t.is((await daemon.docker(['start', 'crate'])).stdout, 'crate\n');
  t.is((await daemon.docker(['rm', '-f', 'crate'])).exitCode, 0);
  await daemon.docker(['create', 'busybox', 'true']);
  t.regex((await daemon.docker(['container', 'prune', '-f'])).stdout, /Deleted Containers:\n[0-9a-f]{64}/);
  t.is((await daemon.docker(['ps', '-aq'])).stdout, '');
});

test('docker logs brings what was written, and follows', async (t) => {
  await using daemon = await startFakeDaemon();
  await daemon.docker(['run', '-d', '--name', 'box', 'busybox', 'sh', '-c', 'echo one; sleep 0.5; echo two >&2']);
  const followed = await daemon.docker(['logs', '-f', 'box']);
  t.deepEqual(followed, { exitCode: 0, stdout: 'one\n', stderr: 'two\n' });
  t.is((await daemon.docker(['logs', '--tail', '1', 'box'])).stdout, '');
});

test('docker events streams as things happen, with nanoseconds unharmed', async (t) => {
  await using daemon = await startFakeDaemon();
  const events = daemon.spawnDocker(['events', '--format', 'json']);
  t.teardown(() => events.kill('SIGKILL'));
  while (daemon.engine.events.subscriptions === 0) await new Promise((resolve) => setTimeout(resolve, 10));
  await daemon.docker(['create', '--name', 'box', '-l', 'k=v', 'busybox', 'true']);
  const [line] = (await once(events.stdout!, 'data')) as [Buffer];
  const event = JSON.parse(line.toString()) as Record<string, unknown>;
  t.like(event, {
    Type: 'container',
    Action: 'create',
    scope: 'local',
    Actor: { Attributes: { name: 'box', k: 'v', image: 'busybox' } },
  });
  t.regex(line.toString(), /"timeNano":\d{12,}000007\b/);
  events.kill('SIGTERM');
  await once(events, 'exit');
  while (daemon.engine.events.subscriptions > 0) await new Promise((resolve) => setTimeout(resolve, 10));
  t.pass('the subscription ended with its client');
});

test('docker network ls and inspect show the three built-in networks', async (t) => {
  await using daemon = await startFakeDaemon();
  t.is(
    (await daemon.docker(['network', 'ls', '--format', '{{.Name}} {{.Driver}}'])).stdout,
    'bridge bridge\nhost host\nnone null\n',
  );
  const { stdout } = await daemon.docker([
    'network',
    'inspect',
    'bridge',
    '--format',
    '{{(index .IPAM.Config 0).Gateway}}',
  ]);
  t.is(stdout, '172.17.0.1\n');
});

test('what does not exist yet says so', async (t) => {
  await using daemon = await startFakeDaemon();
  t.is((await daemon.docker(['volume', 'ls', '-q'])).exitCode, 0);
  t.regex((await daemon.docker(['volume', 'create', 'v'])).stderr, /this version of Bulkhead has no volumes yet/);
  t.regex((await daemon.docker(['node', 'ls'])).stderr, /This node is not a swarm manager/);
});
