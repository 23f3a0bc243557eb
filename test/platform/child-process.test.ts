import { open } from 'node:fs/promises';
import test from 'ava';
import { runChild } from '../../src/platform/child-process.ts';

test('a child reads the descriptor given and its output and code are returned', async (t) => {
  await using file = await open(new URL(import.meta.url), 'r');

  const outcome = await runChild({ command: 'sh', args: ['-c', 'head -c 6; echo oops >&2; exit 3'], stdin: file.fd });

  t.deepEqual(outcome, { exitCode: 3, stdout: 'import', stderr: 'oops\n' });
});

test('a child that a signal ended has no exit code', async (t) => {
  const outcome = await runChild({ command: 'sh', args: ['-c', 'kill -9 $$'] });

  t.is(outcome.signalName, 'SIGKILL');
  t.is(outcome.exitCode, undefined);
});

test('a cancelled child is gone when the promise settles', async (t) => {
  const controller = new AbortController();
  const running = runChild({ command: 'sleep', args: ['1000'], signal: controller.signal });
  setImmediate(() => controller.abort());

  await t.throwsAsync(running, { name: 'AbortError' });
});

test('a child that floods its output is stopped', async (t) => {
  await t.throwsAsync(runChild({ command: 'yes', args: [], maxOutputBytes: 10_000 }), { code: 'limit-exceeded' });
});

test('a program that does not exist is named', async (t) => {
  await t.throwsAsync(runChild({ command: '/nonexistent/program', args: [] }), {
    message: /cannot run \/nonexistent\/program: no such program/,
  });
});
