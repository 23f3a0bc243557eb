import test from 'ava';
import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { text } from 'node:stream/consumers';
import { startFakeDaemon, type FakeDaemon } from './fake-daemon.ts';
import { encodeFrame } from './fake-containers.ts';

async function startBox(daemon: FakeDaemon): Promise<void> {
  await daemon.docker(['create', '-i', '--name', 'box', 'busybox', 'cat']);
  await daemon.docker(['start', 'box']);
}

/** POST with a body, GET without. */
async function ask(daemon: FakeDaemon, path: string, body?: object): Promise<{ status: number; body: string }> {
  const request = httpRequest({
    socketPath: daemon.socketPath,
    method: body === undefined ? 'GET' : 'POST',
    path,
    agent: false,
    headers: body === undefined ? {} : { 'Content-Type': 'application/json' },
  });
  request.end(body === undefined ? undefined : JSON.stringify(body));
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  return { status: response.statusCode ?? 0, body: await text(response) };
}

async function createExec(daemon: FakeDaemon, body: object): Promise<string> {
  const created = await ask(daemon, '/v1.51/containers/box/exec', body);
  return (JSON.parse(created.body) as { Id: string }).Id;
}

test('docker exec carries output, errors and the exit code, and asks for what its flags say', async (t) => {
  await using daemon = await startFakeDaemon();
  await startBox(daemon);

  const result = await daemon.docker(
    [
      'exec',
      '-i',
      '-e',
      'COLOUR=blue',
      '-u',
      'ada',
      '-w',
      '/tmp',
      '--privileged',
      'box',
      'sh',
      '-c',
      'cat; echo $COLOUR; echo e >&2; exit 7',
    ],
    { stdin: 'in\n' },
  );

  t.deepEqual(result, { exitCode: 7, stdout: 'in\nblue\n', stderr: 'e\n' });
  t.like(daemon.engine.execs.lastRequest, {
    command: ['sh', '-c', 'cat; echo $COLOUR; echo e >&2; exit 7'],
    stdin: true,
    stdout: true,
    stderr: true,
    tty: false,
    environment: ['COLOUR=blue'],
    user: 'ada',
    workingDirectory: '/tmp',
    isPrivileged: true,
  });
});

test('docker exec --detach comes back at once, and a program that is not there is told in the stream', async (t) => {
  await using daemon = await startFakeDaemon();
  await startBox(daemon);

  const detached = await daemon.docker(['exec', '-d', 'box', 'sleep', '0.1']);
  const missing = await daemon.docker(['exec', 'box', 'nope']);

  t.deepEqual(detached, { exitCode: 0, stdout: '', stderr: '' });
  t.is(missing.exitCode, 127);
  t.regex(missing.stdout, /exec: "nope": executable file not found in \$PATH/);
  t.deepEqual(
    daemon.engine.calls.filter((call) => call.startsWith('exec')),
    ['exec detached', 'exec'],
  );
});

test('an exec is inspected with a null exit code before its end, and started once only', async (t) => {
  await using daemon = await startFakeDaemon();
  await startBox(daemon);

  const id = await createExec(daemon, { Cmd: ['sh', '-c', 'exit 3'], AttachStdout: true, User: 'ada' });
  const before = await ask(daemon, `/exec/${id}/json`);
  const answered = await ask(daemon, `/exec/${id}/start`, { Detach: false });
  const after = await ask(daemon, `/exec/${id}/json`);
  const again = await ask(daemon, `/exec/${id}/start`, { Detach: false });
  const unknown = await ask(daemon, '/exec/feed/json');

  t.regex(id, /^[0-9a-f]{64}$/);
  t.like(JSON.parse(before.body), {
    ID: id,
    Running: false,
    ExitCode: null,
    ProcessConfig: { tty: false, entrypoint: 'sh', arguments: ['-c', 'exit 3'], privileged: false, user: 'ada' },
    OpenStdin: false,
    OpenStdout: true,
    Pid: 0,
  });
  t.is(answered.status, 200);
  t.like(JSON.parse(after.body), { Running: false, ExitCode: 3 });
  t.deepEqual(again, { status: 409, body: `{"message":"exec command ${id} has already run"}\n` });
  t.deepEqual(unknown, { status: 404, body: '{"message":"No such exec instance: feed"}\n' });
});

test('a start with Upgrade that asks for detachment is answered without a stream', async (t) => {
  await using daemon = await startFakeDaemon();
  await startBox(daemon);
  const id = await createExec(daemon, { Cmd: ['true'] });
  const body = '{"Detach":true}';

  const answer = await daemon.exchange(
    `POST /v1.51/exec/${id}/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n` +
      `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
  );

  t.regex(answer, /^HTTP\/1\.1 200 OK\r\n/);
  t.regex(answer, /Content-Length: 0\r\n/);
  t.true(answer.endsWith('\r\n\r\n'));
});

test('without Upgrade, stdin comes on the bare connection after the body', async (t) => {
  await using daemon = await startFakeDaemon();
  await startBox(daemon);
  const id = await createExec(daemon, { Cmd: ['head', '-n', '1'], AttachStdin: true, AttachStdout: true });
  const body = '{}';
  const socket = await daemon.connect();
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));

  socket.write(
    `POST /v1.51/exec/${id}/start HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
  );
  await once(socket, 'data');
  socket.write('line\n');
  await once(socket, 'end');

  const received = Buffer.concat(chunks);
  t.regex(received.toString('latin1'), /^HTTP\/1\.1 200 OK\r\nContent-Type: application\/vnd\.docker\.raw-stream\r\n/);
  t.deepEqual(received.subarray(received.indexOf('\r\n\r\n') + 4), encodeFrame(1, Buffer.from('line\n')));
  socket.destroy();
});

test('what an exec cannot be is refused before anything is made', async (t) => {
  await using daemon = await startFakeDaemon();
  await daemon.docker(['create', '--name', 'box', 'busybox', 'cat']);
  const refusals = [
    [{ Cmd: ['a\0b'] }, 400, /it contains a zero byte/],
    [{ Cmd: ['a'], Env: ['=x'] }, 400, /invalid environment variable: =x/],
    [{ Cmd: 'a' }, 400, /invalid JSON: Cmd/],
    [{ Cmd: ['a'], ConsoleSize: [1, -1] }, 400, /invalid JSON: ConsoleSize/],
    [{ Cmd: ['a'] }, 409, /container [0-9a-f]{64} is not running/],
  ] as const;
  for (const [body, status, message] of refusals) {
    const answer = await ask(daemon, '/v1.51/containers/box/exec', body);
    t.is(answer.status, status, JSON.stringify(body));
    t.regex(answer.body, message);
  }
  t.is((await ask(daemon, '/v1.51/containers/nobody/exec', { Cmd: ['a'] })).status, 404);
});

test('sizes of a terminal come from the bodies since 1.42, and from resize', async (t) => {
  await using daemon = await startFakeDaemon();
  await startBox(daemon);
  const body = { Cmd: ['cat'], Tty: true, ConsoleSize: [24, 80] };

  const id = await createExec(daemon, body);
  const now = daemon.engine.execs.lastRequest?.size;
  await ask(daemon, '/v1.41/containers/box/exec', body);
  const before = daemon.engine.execs.lastRequest?.size;
  const resized = await ask(daemon, `/exec/${id}/resize?h=40&w=100`, {});
  const refused = await ask(daemon, `/exec/${id}/resize?h=x&w=100`, {});

  t.deepEqual(now, { height: 24, width: 80 });
  t.is(before, undefined);
  t.is(resized.status, 200);
  t.true(daemon.engine.calls.includes('exec resize 40x100'));
  t.is(refused.status, 400);
});
