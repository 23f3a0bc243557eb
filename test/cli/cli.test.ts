import { readFile } from 'node:fs/promises';
import test from 'ava';
import { CATALOGUE } from '../../src/cli/catalogue.ts';
import { BULKHEAD_VERSION } from '../../src/cli/version.ts';
import { answerJson, startScriptedDaemon } from '../client/scripted-daemon.ts';
import { callCli } from './cli-harness.ts';

test('the version is that of the package', async (t) => {
  const manifest = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  t.is(BULKHEAD_VERSION, manifest.version);
  t.is((await callCli(['--version'])).stdout, `Bulkhead version ${BULKHEAD_VERSION}\n`);
});

test('every command loads, has a help page, and no name is taken twice', async (t) => {
  const names = CATALOGUE.flatMap((entry) => [entry.name, ...(entry.aliases ?? [])]);
  t.is(new Set(names).size, names.length);
  for (const entry of CATALOGUE) {
    const { exitCode, stdout } = await callCli([...entry.name.split(' '), '--help']);
    t.is(exitCode, 0);
    t.true(stdout.startsWith(`Usage:  bulkhead ${entry.name}`), entry.name);
  }
});

test('an unknown command is told with the closest one', async (t) => {
  const outcome = await callCli(['psx']);
  t.is(outcome.exitCode, 2);
  t.is(
    outcome.stderr,
    "bulkhead: unknown command: bulkhead psx; did you mean: bulkhead ps\n\nRun 'bulkhead --help' for more information\n",
  );
  t.regex((await callCli(['netwrk', 'ls'])).stderr, /did you mean: bulkhead network\n/);
});

test('a wrong command line exits 2, and 125 in run', async (t) => {
  t.is((await callCli(['ps', 'x'])).exitCode, 2);
  t.is((await callCli(['rm'])).exitCode, 2);
  t.is((await callCli(['run'])).exitCode, 125);
  t.is((await callCli(['run', '--foo', 'x'])).exitCode, 125);
  t.is((await callCli(['run', '-p', 'abc', 'x'])).exitCode, 125);
});

test('a daemon that is not there is told with its socket and the remedy', async (t) => {
  const outcome = await callCli(['ps'], {
    environment: { BULKHEAD_HOST: 'unix:///nonexistent/b.sock', DOCKER_HOST: 'unix:///other' },
  });
  t.is(outcome.exitCode, 1);
  t.is(
    outcome.stderr,
    'cannot connect to the daemon at unix:///nonexistent/b.sock: is the daemon running? start it with: bulkhead daemon\n',
  );
});

test("the daemon's statuses become exit codes", async (t) => {
  for (const [status, exitCode] of [
    [404, 3],
    [409, 4],
    [507, 5],
    [504, 124],
    [500, 1],
  ] as const) {
    await using daemon = await startScriptedDaemon({
      answer: (_request, response) => answerJson(response, status, { message: 'because' }),
    });
    const outcome = await callCli(['-H', daemon.host, 'stop', 'a']);
    t.deepEqual(outcome, { exitCode, stdout: '', stderr: 'Error response from daemon: because\n' });
  }
});

test('of several names each has its turn, and the first failure is the exit code', async (t) => {
  await using daemon = await startScriptedDaemon({
    answer: ({ path }, response) => {
      if (path.includes('/gone')) answerJson(response, 404, { message: 'No such container: gone' });
      else response.writeHead(204).end();
    },
  });
  const outcome = await callCli(['-H', daemon.host, 'rm', 'gone', 'here']);
  t.deepEqual(outcome, {
    exitCode: 3,
    stdout: 'here\n',
    stderr: 'Error response from daemon: No such container: gone\n',
  });
});

test('commands of other rooms get their arguments', async (t) => {
  t.is((await callCli(['daemon', '-H', 'unix:///x'])).exitCode, 9);
});

test('inspect prints what is found and tells what is not', async (t) => {
  await using daemon = await startScriptedDaemon({
    answer: ({ path }, response) => {
      if (path === '/containers/web/json') answerJson(response, 200, { Zebra: 1, Id: 'x', Apple: '<&>' });
      else answerJson(response, 404, { message: 'no such thing' });
    },
  });
  const outcome = await callCli(['-H', daemon.host, 'inspect', 'web', 'nope']);
  t.is(outcome.exitCode, 3);
  t.is(outcome.stdout, '[\n    {\n        "Zebra": 1,\n        "Id": "x",\n        "Apple": "<&>"\n    }\n]\n');
  t.is(outcome.stderr, 'error: no such object: nope\n');
});
