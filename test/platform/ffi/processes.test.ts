import { spawn } from 'node:child_process';
import { once } from 'node:events';
import test from 'ava';
import { readTscFrequency } from '../../../src/platform/ffi/host-clock.ts';
import { ProcessHandle, readProcess } from '../../../src/platform/ffi/processes.ts';

test('a process is read with its parent, state and start', async (t) => {
  const facts = await readProcess({ pid: process.pid });

  t.like(facts, { pid: process.pid, parentPid: process.ppid });
  t.true(facts.startTimeTicks > 0);
  t.deepEqual(await readProcess({ pid: process.pid, startTimeTicks: facts.startTimeTicks }), {
    ...facts,
    state: facts.state,
  });
});

test('a pid that now belongs to another process is not mistaken', async (t) => {
  const wanted = { pid: process.pid, startTimeTicks: 1 };

  await t.throwsAsync(readProcess(wanted), { code: 'not-found', message: /given out again/ });
  await t.throwsAsync(ProcessHandle.open(wanted), { code: 'not-found', message: /given out again/ });
  await t.throwsAsync(ProcessHandle.open({ pid: 2 ** 30 }), { code: 'not-found' });
  await t.throwsAsync(ProcessHandle.open({ pid: -1 }), { code: 'invalid-argument' });
});

test('all who wait for a process learn of its end', async (t) => {
  const child = spawn('sleep', ['60']);
  using handle = await ProcessHandle.open({ pid: child.pid ?? 0 });
  const reaped = once(child, 'exit');
  const waits = [handle.exited(), handle.exited()];

  t.true(handle.signal(15));
  await Promise.all(waits);
  await reaped;

  t.false(handle.signal(0), 'the process is gone');
  await t.notThrowsAsync(handle.exited(), 'who asks late learns it too');
});

test('waiting can be cancelled, and ends when the handle is disposed', async (t) => {
  const child = spawn('sleep', ['60']);
  t.teardown(() => child.kill());
  const handle = await ProcessHandle.open({ pid: child.pid ?? 0 });
  await t.throwsAsync(handle.exited({ signal: AbortSignal.timeout(10) }), { code: 'cancelled' });
  const wait = handle.exited();

  handle[Symbol.dispose]();
  handle[Symbol.dispose]();

  await t.throwsAsync(wait, { code: 'wrong-state' });
  t.throws(() => handle.signal(0), { code: 'wrong-state' });
});

test("a signal that does not exist is refused, the process's own rights are kept", async (t) => {
  using handle = await ProcessHandle.open({ pid: process.pid });

  t.throws(() => handle.signal(1000), { code: 'invalid-argument', message: /signal 1000/ });
  t.true(handle.signal(0));
});

test('the frequency of the time-stamp counter is plausible', async (t) => {
  const { khz } = await readTscFrequency();

  t.true(khz > 500_000 && khz < 10_000_000, `${khz} kHz`);
});
