import test from 'ava';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { answerJson, startScriptedDaemon } from '../client/scripted-daemon.ts';
import { callCli, makeDirectory } from './cli-harness.ts';

test('a file comes out of a guest whole, and goes in under its own name', async (t) => {
  await using directory = await makeDirectory();
  await using daemon = await startScriptedDaemon({
    answer: ({ method }, response) =>
      method === 'GET' ? response.end('from the guest') : response.writeHead(204).end(),
  });
  const target = join(directory.path, 'hosts');
  t.is((await callCli(['-H', daemon.host, 'vm', 'cp', 'web:/etc/hosts', directory.path])).exitCode, 0);
  t.is(await readFile(target, 'utf8'), 'from the guest');
  t.deepEqual(await readdir(directory.path), ['hosts']);
  await writeFile(target, 'to the guest');
  t.is((await callCli(['-H', daemon.host, 'vm', 'cp', target, 'web:/root/'])).exitCode, 0);
  const put = daemon.seen.at(-1);
  t.is(put?.body, 'to the guest');
  t.is(put?.query.get('path'), '/root/hosts');
  t.is((await callCli(['-H', daemon.host, 'vm', 'cp', 'web:/a', 'db:/b'])).exitCode, 2);
});

test('a launch that fails midway exits with the failure, after the steps that went well', async (t) => {
  await using daemon = await startScriptedDaemon({
    answer: (_request, response) => {
      response.write(`${JSON.stringify({ phase: 'boot', text: 'booting' })}\r\n`);
      response.end(`${JSON.stringify({ error: 'late', errorDetail: { code: 504, message: 'late' } })}\r\n`);
    },
  });
  const outcome = await callCli(['-H', daemon.host, 'vm', 'launch', '-m', '512M', '-c', '2', 'debian/local', 'web']);
  t.is(outcome.exitCode, 124);
  t.is(outcome.stdout, '');
  t.regex(outcome.stderr, /boot: booting\nError response from daemon: late\n$/);
  t.deepEqual(JSON.parse(daemon.seen.at(-1)?.body ?? ''), {
    image: 'debian/local',
    name: 'web',
    vcpus: 2,
    memoryBytes: 512 * 1024 ** 2,
    wait: true,
  });
});

test('a program in a guest has its own exit code, output and input', async (t) => {
  await using daemon = await startScriptedDaemon({
    answer: (_request, response) =>
      answerJson(response, 200, { exitCode: 7, stdout: btoa('out'), stderr: btoa('err'), isTruncated: false }),
  });
  const outcome = await callCli(['-H', daemon.host, 'vm', 'exec', '-i', '-e', 'A=1', 'web', '--', 'sh', '-c', 'x'], {
    stdin: 'in',
  });
  t.deepEqual(outcome, { exitCode: 7, stdout: 'out', stderr: 'err' });
  t.deepEqual(JSON.parse(daemon.seen.at(-1)?.body ?? ''), {
    command: ['sh', '-c', 'x'],
    env: ['A=1'],
    input: btoa('in'),
  });
});

test('what a guest did not take of an allocation is told, and is a failure', async (t) => {
  const changes = [
    { what: 'cpus', asked: 4, actual: 4, note: '' },
    { what: 'memory', asked: 2 * 1024 ** 3, actual: 1024 ** 3, note: 'not all of it' },
  ];
  await using daemon = await startScriptedDaemon({
    answer: (_request, response) => answerJson(response, 200, { changes }),
  });
  const outcome = await callCli(['-H', daemon.host, 'vm', 'set', 'web', 'cpus=4', 'memory=2G']);
  t.is(outcome.exitCode, 1);
  t.is(outcome.stdout, 'cpus: 4, in the guest 4\nmemory: 2GiB, in the guest 1GiB (not all of it)\n');
  t.is((await callCli(['-H', daemon.host, 'vm', 'set', 'web', 'color=red'])).exitCode, 2);
});
