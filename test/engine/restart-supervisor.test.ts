import { setTimeout as delay } from 'node:timers/promises';
import test from 'ava';
import type { ContainerRecord } from '../../src/engine/container-record.ts';
import { RestartSupervisor } from '../../src/engine/restart-supervisor.ts';

const record = {
  id: 'a',
  restartCount: 0,
  hostConfig: { RestartPolicy: { Name: 'always', MaximumRetryCount: 0 } },
} as unknown as ContainerRecord;
const exit = { exitCode: 1, ranForMs: 5 };

test('a restart comes after its delay, which counts from the end, and whoever waits for it is told', async (t) => {
  const supervisor = new RestartSupervisor();
  const starts: number[] = [];
  const began = performance.now();

  t.true(supervisor.decide(record, exit));
  await delay(60); // What is left of the ended run is cleared away meanwhile.
  supervisor.schedule('a', () => {
    starts.push(performance.now() - began);
    return Promise.resolve();
  });
  await supervisor.settled('a');

  t.is(starts.length, 1);
  t.true((starts[0] ?? 0) >= 95 && (starts[0] ?? 0) < 155, String(starts[0]));
});

test('a cancelled restart does not come, nor does one after it, until the container is started by hand', async (t) => {
  const supervisor = new RestartSupervisor();
  let starts = 0;

  t.true(supervisor.decide(record, exit));
  supervisor.schedule('a', () => Promise.resolve(void (starts += 1)));
  supervisor.cancel('a');
  await supervisor.settled('a');
  await delay(150);

  t.is(starts, 0);
  t.false(supervisor.decide(record, exit));
  supervisor.reset('a');
  t.true(supervisor.decide(record, exit));
  supervisor.end();
});

test('cancelled before the ended run is cleared away: nothing is scheduled any more', async (t) => {
  const supervisor = new RestartSupervisor();
  let starts = 0;

  supervisor.decide(record, exit);
  supervisor.cancel('a');
  supervisor.schedule('a', () => Promise.resolve(void (starts += 1)));
  await delay(150);

  t.is(starts, 0);
});

test('a daemon that ends starts nothing', async (t) => {
  const supervisor = new RestartSupervisor();
  let starts = 0;

  supervisor.decide(record, exit);
  supervisor.schedule('a', () => Promise.resolve(void (starts += 1)));
  supervisor.end();
  await delay(150);

  t.is(starts, 0);
  t.false(supervisor.decide(record, exit));
});
