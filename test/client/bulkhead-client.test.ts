import test from 'ava';
import { ApiError, connect, demultiplex } from '../../src/client/index.ts';
import { answerJson, frame, startScriptedDaemon } from './scripted-daemon.ts';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';

test('the older of the two API versions is spoken', async (t) => {
  await using daemon = await startScriptedDaemon({ answer: (_request, response) => answerJson(response, 200, []) });
  using client = connect({ host: daemon.host });
  t.is(await client.apiVersion(), '1.47');
  await client.containers.list();
  await client.containers.list();
  t.deepEqual(
    daemon.seen.map(({ path }) => path),
    ['/_ping', '/containers/json', '/containers/json'],
  );
});

test('nulls and unknown members of an answer are tolerated, and unknown ones kept', async (t) => {
  await using daemon = await startScriptedDaemon({
    answer: (_request, response) => answerJson(response, 200, [{ Id: 'a', Names: null, Labels: null, New: 1 }]),
  });
  using client = connect({ host: daemon.host });
  const [container] = await client.containers.list();
  t.like(container, { Id: 'a', Names: [], Labels: {}, New: 1, Image: '' });
});

test('an answer of another shape is an error that names the member', async (t) => {
  await using daemon = await startScriptedDaemon({
    answer: (_request, response) => answerJson(response, 200, [{ Id: 7 }]),
  });
  using client = connect({ host: daemon.host });
  await t.throwsAsync(client.containers.list(), { message: /GET \/containers\/json.*0\.Id/ });
});

test("the daemon's refusal is an ApiError with its status and message", async (t) => {
  await using daemon = await startScriptedDaemon({
    answer: (_request, response) => answerJson(response, 409, { message: 'in use' }),
  });
  using client = connect({ host: daemon.host });
  const error = await t.throwsAsync(client.containers.remove('x'), { instanceOf: ApiError, message: 'in use' });
  t.is(error?.status, 409);
});

test('a missing socket is told with its address and what to do', async (t) => {
  using client = connect({ host: 'unix:///nonexistent/b.sock' });
  await t.throwsAsync(client.containers.list(), {
    message:
      'cannot connect to the daemon at unix:///nonexistent/b.sock: is the daemon running? start it with: bulkhead daemon',
  });
});

test('an abort ends a request that is under way', async (t) => {
  await using daemon = await startScriptedDaemon({ answer: () => {} });
  using client = connect({ host: daemon.host });
  await client.apiVersion();
  await t.throwsAsync(client.containers.list({ signal: AbortSignal.timeout(50) }), { name: 'AbortError' });
});

test('ending an attached stream is half-close: output still arrives', async (t) => {
  await using daemon = await startScriptedDaemon({
    attach: (stream) => {
      void text(stream).then((input) => stream.end(frame(1, `got ${input}`)));
    },
  });
  using client = connect({ host: daemon.host });
  const stream = await client.containers.attach('x', { stdin: true, stdout: true });
  stream.end('question');
  const stdout = new PassThrough();
  await demultiplex(stream, { stdout, stderr: undefined });
  stdout.end();
  t.is(await text(stdout), 'got question');
});

test('names with slashes and colons stay whole in a path, others are escaped', async (t) => {
  await using daemon = await startScriptedDaemon({ answer: (_request, response) => answerJson(response, 200, []) });
  using client = connect({ host: daemon.host });
  await client.images.history('localhost:5000/a/b:tag');
  await client.images.history('a b?c#d');
  t.deepEqual(
    daemon.seen.slice(1).map(({ path }) => path),
    ['/images/localhost:5000/a/b:tag/history', '/images/a%20b%3Fc%23d/history'],
  );
});

test('credentials go as base64url JSON in a header', async (t) => {
  await using daemon = await startScriptedDaemon({
    answer: (_request, response) => answerJson(response, 200, { status: 'done' }),
  });
  using client = connect({ host: daemon.host });
  const messages = [];
  for await (const message of await client.images.pull('a', { tag: 'b', auth: { username: 'ünï', password: '??>>' } }))
    messages.push(message.status);
  t.deepEqual(messages, ['done']);
  const header = String(daemon.seen.at(-1)?.headers['x-registry-auth']);
  t.notRegex(header, /[+/]/);
  t.deepEqual(JSON.parse(Buffer.from(header, 'base64url').toString()), { username: 'ünï', password: '??>>' });
});
