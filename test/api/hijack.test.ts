import test from 'ava';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { Duplex, Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { serveHijack } from '../../src/api/hijack.ts';
import { encodeFrame } from './fake-containers.ts';
import { startFakeDaemon, type FakeDaemon } from './fake-daemon.ts';

const UPGRADE = 'Connection: Upgrade\r\nUpgrade: tcp\r\n';

interface Created {
  readonly command: readonly string[];
  readonly tty?: boolean;
}

/** Creates `box` with stdin open, and leaves it unstarted. */
async function createBox(daemon: FakeDaemon, { command, tty = false }: Created): Promise<void> {
  const { exitCode, stderr } = await daemon.docker([
    'create',
    '-i',
    ...(tty ? ['-t'] : []),
    '--name',
    'box',
    'busybox',
    ...command,
  ]);
  if (exitCode !== 0) throw new Error(stderr);
}

interface AttachRequest {
  readonly headers?: string;
  readonly body?: string;
  readonly version?: string;
}

function attachRequest({ headers = UPGRADE, body = '', version = 'v1.51' }: AttachRequest = {}): string {
  return `POST /${version}/containers/box/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: d\r\n${headers}\r\n${body}`;
}

/** Everything the server sends, and a promise of its end. */
function collect(socket: Socket): { readonly chunks: Buffer[]; readonly ended: Promise<unknown> } {
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  return { chunks, ended: once(socket, 'end') };
}

async function readUntil(chunks: readonly Buffer[], text: string): Promise<string> {
  const deadline = Date.now() + 10_000;
  while (Date.now() < deadline) {
    const all = Buffer.concat(chunks).toString('latin1');
    if (all.includes(text)) return all;
    await delay(5);
  }
  throw new Error(`never came: ${text}`);
}

test('attach answers 101 before the start, in a write of its own, and names the multiplexed type from 1.42 on', async (t) => {
  await using daemon = await startFakeDaemon();
  await createBox(daemon, { command: ['echo', 'hi'] });
  const socket = await daemon.connect();
  const { chunks, ended } = collect(socket);
  socket.write(attachRequest());
  await readUntil(chunks, '\r\n\r\n');
  await daemon.docker(['start', 'box']);
  await ended;
  const headers = chunks[0]?.toString() ?? '';
  t.regex(
    headers,
    /^HTTP\/1\.1 101 UPGRADED\r\nContent-Type: application\/vnd\.docker\.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n/,
  );
  t.true(headers.endsWith('\r\n\r\n'));
  t.deepEqual(Buffer.concat(chunks.slice(1)), encodeFrame(1, Buffer.from('hi\n')));
  socket.destroy();
});

test('before 1.42 the type is raw although frames follow, and a terminal has no frames', async (t) => {
  await using daemon = await startFakeDaemon();
  await createBox(daemon, { command: ['echo', 'hi'], tty: true });
  const socket = await daemon.connect();
  const { chunks, ended } = collect(socket);
  socket.write(attachRequest({ version: 'v1.51' }));
  await readUntil(chunks, '\r\n\r\n');
  const old = await daemon.exchange(attachRequest({ version: 'v1.41' }), '\r\n\r\n');
  await daemon.docker(['start', 'box']);
  await ended;
  t.regex(chunks[0]?.toString() ?? '', /Content-Type: application\/vnd\.docker\.raw-stream/);
  t.is(Buffer.concat(chunks.slice(1)).toString(), 'hi\n');
  t.regex(old, /Content-Type: application\/vnd\.docker\.raw-stream/);
  socket.destroy();
});

test('a body and stdin that come with the headers are told apart', async (t) => {
  await using daemon = await startFakeDaemon();
  for (const [headers, body] of [
    [`${UPGRADE}Content-Type: application/json\r\nContent-Length: 2\r\n`, '{}'],
    [`${UPGRADE}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n`, '2\r\n{}\r\n0\r\n\r\n'],
    [UPGRADE, ''],
  ] as const) {
    await createBox(daemon, { command: ['cat'] });
    const socket = await daemon.connect();
    const { chunks, ended } = collect(socket);
    socket.end(attachRequest({ headers, body: `${body}first` }));
    await readUntil(chunks, '\r\n\r\n');
    await daemon.docker(['start', 'box']);
    await ended;
    t.deepEqual(Buffer.concat(chunks.slice(1)), encodeFrame(1, Buffer.from('first')), headers);
    socket.destroy();
    await daemon.docker(['rm', '-f', 'box']);
  }
});

test('an upgrade body that comes in pieces is waited for', async (t) => {
  await using daemon = await startFakeDaemon();
  await createBox(daemon, { command: ['cat'] });
  const socket = await daemon.connect();
  const { chunks, ended } = collect(socket);
  socket.write(
    attachRequest({ headers: `${UPGRADE}Content-Type: application/json\r\nContent-Length: 4\r\n`, body: '{ ' }),
  );
  await delay(30);
  t.is(chunks.length, 0);
  socket.write(' }std');
  await readUntil(chunks, '\r\n\r\n');
  socket.end('in');
  await daemon.docker(['start', 'box']);
  await ended;
  const output = Buffer.concat(chunks.slice(1))
    .toString('latin1')
    .replaceAll(/\x01\0\0\0\0\0\0./g, '');
  t.is(output, 'stdin');
  socket.destroy();
});

test('without an Upgrade header the answer is 200 and raw, with stdin by the bare connection or by chunks', async (t) => {
  await using daemon = await startFakeDaemon();
  for (const [headers, input] of [
    ['', 'bare'],
    ['Transfer-Encoding: chunked\r\n', '4\r\nbare\r\n0\r\n\r\n'],
    ['Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}', 'bare'],
  ] as const) {
    await createBox(daemon, { command: ['cat'] });
    const socket = await daemon.connect();
    const { chunks, ended } = collect(socket);
    socket.write(
      headers.endsWith('{}')
        ? attachRequest({ headers: headers.slice(0, -4), body: '{}' })
        : attachRequest({ headers }),
    );
    await readUntil(chunks, '\r\n\r\n');
    await daemon.docker(['start', 'box']);
    socket.end(input);
    await ended;
    t.regex(
      chunks[0]?.toString() ?? '',
      /^HTTP\/1\.1 200 OK\r\nContent-Type: application\/vnd\.docker\.raw-stream\r\n/,
    );
    t.notRegex(chunks[0]?.toString() ?? '', /Transfer-Encoding/);
    t.deepEqual(Buffer.concat(chunks.slice(1)), encodeFrame(1, Buffer.from('bare')), headers);
    socket.destroy();
    await daemon.docker(['rm', '-f', 'box']);
  }
});

test('what is wrong before the hijack is an ordinary error', async (t) => {
  await using daemon = await startFakeDaemon();
  const missing = await daemon.exchange(attachRequest());
  t.regex(
    missing,
    /^HTTP\/1\.1 404 Not Found\r\n[\s\S]*Content-Type: application\/json\r\n[\s\S]*\{"message":"No such container: box"\}\n$/,
  );
  const tooNew = await daemon.exchange(attachRequest({ version: 'v1.77' }));
  t.regex(tooNew, /^HTTP\/1\.1 400 Bad Request[\s\S]*too new/);
  const plain = await daemon.exchange(attachRequest({ headers: 'Connection: close\r\n' }));
  t.regex(plain, /^HTTP\/1\.1 404 Not Found[\s\S]*No such container: box/);
});

test('a slow client slows the container down, and loses nothing', async (t) => {
  await using daemon = await startFakeDaemon();
  const totalBytes = 32 * 1024 * 1024;
  await createBox(daemon, { command: ['head', '-c', String(totalBytes), '/dev/zero'], tty: true });
  const socket = await daemon.connect();
  socket.write(attachRequest());
  await once(socket, 'readable');
  socket.read();
  const before = process.memoryUsage().rss;
  await daemon.docker(['start', 'box']);
  await delay(300);
  t.true(process.memoryUsage().rss - before < totalBytes / 2);
  let received = 0;
  for await (const chunk of socket) received += (chunk as Buffer).length;
  t.is(received, totalBytes);
});

test('a client that goes away closes its attachment, and the container runs on', async (t) => {
  await using daemon = await startFakeDaemon();
  await createBox(daemon, { command: ['sh', '-c', 'while :; do echo tick; sleep 0.05; done'] });
  const socket = await daemon.connect();
  const { chunks } = collect(socket);
  socket.write(attachRequest());
  await readUntil(chunks, '\r\n\r\n');
  await daemon.docker(['start', 'box']);
  await readUntil(chunks, 'tick');
  socket.destroy();
  while (daemon.engine.containers.closedAttachments === 0) await delay(5);
  t.is(daemon.engine.containers.inspect('box').state.status, 'running');
});

test('docker-py, which drops what comes with the headers, gets a replay 20 ms after them', async (t) => {
  const writes: { readonly atMs: number; readonly text: string }[] = [];
  const connection = new Duplex({
    read: () => undefined,
    write(chunk: Buffer, _encoding, done) {
      writes.push({ atMs: performance.now(), text: chunk.toString() });
      done();
    },
    final(done) {
      done();
      this.destroy();
    },
  });
  const streams = {
    tty: true,
    output: Readable.from([Buffer.from('logged')]),
    input: undefined,
    close: () => undefined,
  };
  await serveHijack(connection, streams, {
    isUpgrade: true,
    version: '1.44',
    headers: {},
    userAgent: 'docker-sdk-python/7.1.0',
    clientBytes: connection,
  });
  t.deepEqual(
    writes.map(({ text }) => text.slice(0, 12)),
    ['HTTP/1.1 101', 'logged'],
  );
  t.true((writes[1]?.atMs ?? 0) - (writes[0]?.atMs ?? 0) >= 19);
});

test('output that breaks cuts the connection and is reported, and a connection that is gone closes the attachment', async (t) => {
  let closes = 0;
  const serve = async (connection: Duplex, output: Readable): Promise<void> =>
    serveHijack(
      connection,
      { tty: true, output, input: undefined, close: () => void (closes += 1) },
      { isUpgrade: true, version: '1.51', headers: {}, userAgent: '', clientBytes: connection },
    );
  const connection = new Duplex({ read: () => undefined, write: (_chunk, _encoding, done) => done() });
  const broken = new Readable({ read: () => void broken.destroy(new Error('shim is gone')) });
  await t.throwsAsync(serve(connection, broken), { message: 'shim is gone' });
  t.true(connection.destroyed);
  const unread = new Readable({ read: () => undefined });
  await serve(connection, unread);
  t.true(unread.destroyed);
  t.is(closes, 2);
});

test("docker run -it is raw both ways and sends the terminal's size", async (t) => {
  await using daemon = await startFakeDaemon();
  // script(1) gives the CLI a terminal of its own.
  const command = `stty rows 33 cols 77; docker -H unix://${daemon.socketPath} run -it --rm busybox head -c 3`;
  const child = spawn('script', ['-qec', command, '/dev/null'], { stdio: 'pipe' });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  while (!daemon.engine.calls.includes('start')) await delay(10);
  child.stdin.write('abc');
  const [exitCode] = (await once(child, 'exit')) as [number];
  t.is(exitCode, 0, output);
  t.regex(output, /abc/);
  t.true(daemon.engine.calls.includes('resize 33x77'), daemon.engine.calls.join());
});
