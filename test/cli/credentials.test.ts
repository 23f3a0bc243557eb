import { chmod, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { eraseRegistryAuth, loadRegistryAuth, storeRegistryAuth } from '../../src/cli/registry/credentials.ts';
import { answerJson, startScriptedDaemon } from '../client/scripted-daemon.ts';
import { callCli, makeDirectory } from './cli-harness.ts';

test('what is stored is found again, in a file only its owner reads; other members stay', async (t) => {
  await using directory = await makeDirectory();
  const file = join(directory.path, 'config.json');
  await writeFile(file, '{"detachKeys":"ctrl-x"}');
  await storeRegistryAuth(directory.path, 'r.test:5000', { username: 'ann', password: 'a:b', identitytoken: '' });
  t.deepEqual(await loadRegistryAuth(directory.path, 'r.test:5000'), {
    serveraddress: 'r.test:5000',
    username: 'ann',
    password: 'a:b',
  });
  t.is((await stat(file)).mode & 0o777, 0o600);
  const config = JSON.parse(await readFile(file, 'utf8'));
  t.deepEqual(config, {
    detachKeys: 'ctrl-x',
    auths: { 'r.test:5000': { auth: Buffer.from('ann:a:b').toString('base64') } },
  });
  t.true(await eraseRegistryAuth(directory.path, 'r.test:5000'));
  t.is(await loadRegistryAuth(directory.path, 'r.test:5000'), undefined);
});

test('docker.io has the key that Docker gave it', async (t) => {
  await using directory = await makeDirectory();
  await writeFile(
    join(directory.path, 'config.json'),
    JSON.stringify({ auths: { 'https://index.docker.io/v1/': { auth: Buffer.from('u:p').toString('base64') } } }),
  );
  t.like(await loadRegistryAuth(directory.path, 'docker.io'), { username: 'u', password: 'p' });
});

test.serial('a credential helper is asked', async (t) => {
  await using directory = await makeDirectory();
  const helper = join(directory.path, 'docker-credential-testing');
  await writeFile(
    helper,
    '#!/bin/sh\nread -r key\n[ "$key" = r.test ] || { echo "credentials not found in native keychain"; exit 1; }\necho "{\\"Username\\":\\"$1\\",\\"Secret\\":\\"for $key\\"}"\n',
  );
  await chmod(helper, 0o755);
  await writeFile(join(directory.path, 'config.json'), '{"credsStore":"testing"}');
  const path = process.env['PATH'];
  t.teardown(() => {
    process.env['PATH'] = path;
  });
  process.env['PATH'] = `${directory.path}:${path}`;
  t.deepEqual(await loadRegistryAuth(directory.path, 'r.test'), {
    serveraddress: 'r.test',
    username: 'get',
    password: 'for r.test',
  });
  t.is(await loadRegistryAuth(directory.path, 'other.test'), undefined);
});

test('login checks with the daemon and stores; pull then sends the credentials', async (t) => {
  await using directory = await makeDirectory();
  await using daemon = await startScriptedDaemon({
    answer: (_request, response) => answerJson(response, 200, { Status: 'Login Succeeded' }),
  });
  const login = await callCli(
    ['--config', directory.path, '-H', daemon.host, 'login', '-u', 'ann', '--password-stdin', 'r.test'],
    { stdin: 'secret\n' },
  );
  t.is(login.exitCode, 0);
  t.is(login.stdout, 'Login Succeeded\n');
  t.deepEqual(JSON.parse(daemon.seen.at(-1)?.body ?? ''), {
    username: 'ann',
    password: 'secret',
    serveraddress: 'r.test',
  });
  await callCli(['--config', directory.path, '-H', daemon.host, 'pull', '-q', 'r.test/a:b']);
  t.like(JSON.parse(Buffer.from(String(daemon.seen.at(-1)?.headers['x-registry-auth']), 'base64url').toString()), {
    username: 'ann',
    password: 'secret',
  });
});
