import test, { type ExecutionContext } from 'ava';
import { appendFile, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { readLog, RunningConsole } from '../../src/engine/guest-console.ts';

const MIB = 1024 * 1024;

async function makeLog(t: ExecutionContext, content = ''): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'bulkhead-console-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const path = join(directory, 'console.log');
  await writeFile(path, content);
  return path;
}

async function readAll(source: AsyncIterable<Buffer>): Promise<string> {
  let text = '';
  for await (const chunk of source) text += chunk.toString();
  return text;
}

test('a log is read whole, or its last part', async (t) => {
  const path = await makeLog(t, 'one two three');
  t.is(await readAll(readLog(path, {})), 'one two three');
  t.is(await readAll(readLog(path, { tailBytes: 5 })), 'three');
});

test('a follower gets what is written later, each byte once, and ends when it is told to', async (t) => {
  const path = await makeLog(t, 'before ');
  const stop = new AbortController();
  const reading = readAll(readLog(path, { follow: stop.signal }));
  for (let index = 0; index < 50; index++) await appendFile(path, `${index} `);
  await appendFile(path, 'last');
  stop.abort();
  t.is(await reading, `before ${Array.from({ length: 50 }, (_, index) => `${index} `).join('')}last`);
});

test('a log that grows without end is cut, its last part kept, and readers go on', async (t) => {
  const path = await makeLog(t);
  using running = new RunningConsole({
    logPath: path,
    socketPath: '/nowhere',
    logger: { warn: (facts) => t.log(facts) },
  });
  const line = `${'x'.repeat(1023)}\n`;
  for (let mib = 0; mib < 9; mib++) await appendFile(path, line.repeat(1024));
  const deadline = Date.now() + 10_000;
  while ((await stat(path)).size > 0 && Date.now() < deadline) await delay(20);
  t.is((await stat(path)).size, 0);
  t.is((await readFile(`${path}.1`)).length, MIB);
  t.false(running.ended.aborted);
  await appendFile(path, 'after');
  t.is(await readAll(readLog(path, {})), 'after');
});

test('an attached client sees the past and sends its keys; its going ends nothing else', async (t) => {
  const path = await makeLog(t, 'login: ');
  const socketPath = join(path, '../console.sock');
  let keys = '';
  const server = createServer((socket) => socket.on('data', (chunk) => (keys += chunk.toString())));
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  t.teardown(() => server.close());
  using running = new RunningConsole({ logPath: path, socketPath, logger: { warn: (facts) => t.log(facts) } });
  const [first, second] = [running.attach(), running.attach()];
  first.input.write('root\r');
  const deadline = Date.now() + 5000;
  while (keys !== 'root\r' && Date.now() < deadline) await delay(10);
  t.is(keys, 'root\r');
  first.close();
  t.is(await readAll(first.output), 'login: ');
  await appendFile(path, 'Password: ');
  second.close();
  t.is(await readAll(second.output), 'login: Password: ');
});
