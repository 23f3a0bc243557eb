import test from 'ava';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { readFile, rm, mkdtemp, stat, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { promisify } from 'node:util';
import type { ListenerSpec } from '../../src/api/listener.ts';
import { startApiServer, type ApiServer } from '../../src/api/server.ts';
import type { EngineError } from '../../src/core/errors.ts';
import type { ImageStore } from '../../src/oci/image-store.ts';
import { FakeEngine } from './fake-engine.ts';

const silent = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };

function start(
  listeners: readonly ListenerSpec[],
  signal = new AbortController().signal,
  engine = new FakeEngine({} as ImageStore),
): Promise<ApiServer> {
  const version = { bulkhead: '0.1.0', engine: '28.5.2', commit: 'abcdef0', buildTime: '' };
  return startApiServer({ engine, listeners, logger: silent, version }, signal);
}

async function temporaryDirectory(): Promise<{ path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), 'bulkhead-listener-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

async function ping(address: { path: string } | { host: string; port: number }): Promise<string> {
  const socket = connect(address);
  socket.write('GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n');
  let answer = '';
  for await (const chunk of socket) answer += String(chunk);
  return answer;
}

test('a socket is for its owner and group only, and goes when the server stops', async (t) => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, 'api.sock');
  await using server = await start([{ kind: 'unix', path }]);
  t.deepEqual(server.addresses, [`unix://${path}`]);
  t.is((await stat(path)).mode & 0o777, 0o660);
  t.regex(await ping({ path }), /OK$/);
  await server.stop({ deadlineMs: 1000 });
  await t.throwsAsync(stat(path), { code: 'ENOENT' });
});

test('a socket that a dead process left is replaced', async (t) => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, 'api.sock');
  // A process that is killed does not remove its socket.
  const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
  await t.throwsAsync(promisify(execFile)(process.execPath, ['-e', script]));
  t.true((await stat(path)).isSocket());
  await using server = await start([{ kind: 'unix', path }]);
  t.regex(await ping({ path }), /OK$/);
  t.is(server.addresses.length, 1);
});

test('a socket that somebody answers on is left alone, and so is a file that is no socket', async (t) => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, 'api.sock');
  const other = createServer().listen(path);
  await once(other, 'listening');
  const busy = await t.throwsAsync<EngineError>(start([{ kind: 'unix', path }]));
  t.is(busy?.code, 'conflict');
  t.regex(
    busy?.message ?? '',
    /another process is listening on .*api\.sock: stop it, or start this daemon with another --host/,
  );
  other.close();
  const file = join(directory.path, 'file');
  await writeFile(file, 'precious');
  const notSocket = await t.throwsAsync<EngineError>(start([{ kind: 'unix', path: file }]));
  t.regex(notSocket?.message ?? '', /exists and is not a socket/);
  t.is(await readFile(file, 'utf8'), 'precious');
});

test('a path too long for a socket is refused by name', async (t) => {
  const error = await t.throwsAsync<EngineError>(start([{ kind: 'unix', path: `/tmp/${'x'.repeat(120)}` }]));
  t.is(error?.code, 'invalid-argument');
});

test('several listeners serve the same API, and one that fails takes the others down', async (t) => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, 'api.sock');
  await using server = await start([
    { kind: 'unix', path },
    { kind: 'tcp', host: '127.0.0.1', port: 0 },
  ]);
  const port = Number(new URL(server.addresses[1] ?? '').port);
  t.regex(await ping({ host: '127.0.0.1', port }), /OK$/);
  t.regex(await ping({ path }), /OK$/);
  const second = join(directory.path, 'second.sock');
  const failure = await t.throwsAsync<EngineError>(
    start([
      { kind: 'unix', path: second },
      { kind: 'tcp', host: '127.0.0.1', port },
    ]),
  );
  t.regex(failure?.message ?? '', new RegExp(`cannot listen on tcp://127\\.0\\.0\\.1:${port}: the address is in use`));
  await t.throwsAsync(stat(second), { code: 'ENOENT' });
});

test('stopping waits for an answer that is under way, closes idle connections at once, and cuts streams at the deadline', async (t) => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, 'api.sock');
  await using server = await start([{ kind: 'unix', path }]);
  const idle = connect(path);
  idle.write('GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n');
  await once(idle, 'data');
  const stream = connect(path);
  stream.write('GET /events HTTP/1.1\r\nHost: d\r\n\r\n');
  await once(stream, 'data');
  const idleClosed = once(idle.resume(), 'close').then(() => performance.now());
  const streamClosed = once(
    stream.resume().on('error', () => undefined),
    'close',
  ).then(() => performance.now());
  const begunAt = performance.now();
  await server.stop({ deadlineMs: 300 });
  await server.stop({ deadlineMs: 300 });
  t.true((await streamClosed) - begunAt >= 290);
  t.true((await idleClosed) < (await streamClosed));
  await t.throwsAsync(ping({ path }), { code: 'ENOENT' });
});

test('aborting the signal stops the server at once', async (t) => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, 'api.sock');
  const abort = new AbortController();
  await using server = await start([{ kind: 'unix', path }], abort.signal);
  t.is(server.addresses.length, 1);
  const stream = connect(path);
  stream.write('GET /events HTTP/1.1\r\nHost: d\r\n\r\n');
  await once(stream, 'data');
  abort.abort();
  await once(
    stream.resume().on('error', () => undefined),
    'close',
  );
  await t.throwsAsync(ping({ path }), { code: 'ENOENT' });
});

test('over TLS, output goes on after the client has ended stdin', async (t) => {
  await using directory = await temporaryDirectory();
  const [key, cert] = [join(directory.path, 'key.pem'), join(directory.path, 'cert.pem')];
  await promisify(execFile)('openssl', [
    ...[
      'req',
      '-x509',
      '-newkey',
      'rsa:2048',
      '-nodes',
      '-subj',
      '/CN=localhost',
      '-days',
      '1',
      '-keyout',
      key,
      '-out',
      cert,
    ],
  ]);
  const tls = { key: await readFile(key), cert: await readFile(cert) };
  const engine = new FakeEngine({} as ImageStore);
  await using server = await start([{ kind: 'tcp', host: '127.0.0.1', port: 0, tls }], undefined, engine);
  const { id } = await engine.containers.create(
    { Image: 'busybox', OpenStdin: true, Tty: true, Cmd: ['sh', '-c', 'cat; sleep 0.2; echo after'] },
    'box',
  );
  const socket = connectTls({
    host: '127.0.0.1',
    port: Number(new URL(server.addresses[0] ?? '').port),
    ca: tls.cert,
    servername: 'localhost',
  });
  socket.write(
    `POST /containers/${id}/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n`,
  );
  await once(socket, 'data');
  await engine.containers.start(id);
  socket.end('in ');
  let output = '';
  for await (const chunk of socket) output += String(chunk);
  t.is(output, 'in after\n');
});
