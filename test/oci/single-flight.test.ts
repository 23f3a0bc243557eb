import test from 'ava';
import { Semaphore } from '../../src/oci/semaphore.ts';
import { SingleFlight } from '../../src/oci/single-flight.ts';
import { thrownBy } from './store-fixture.ts';

test('the work ends when the last one gives up, and its clean-up is waited for', async (t) => {
  const flights = new SingleFlight<string>();
  const log: string[] = [];
  const work = async ({ signal }: { signal: AbortSignal }): Promise<string> => {
    await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    await new Promise((resolve) => setImmediate(resolve));
    log.push('cleaned up');
    throw new Error('stopped');
  };
  const [first, second] = [new AbortController(), new AbortController()];

  const one = thrownBy(flights.join('k', { signal: first.signal }, work));
  const two = thrownBy(flights.join('k', { signal: second.signal }, work));
  first.abort();
  await one;
  log.push('first gone');
  second.abort();
  await two;
  log.push('second gone');

  t.deepEqual(log, ['first gone', 'cleaned up', 'second gone']);
});

test('a failure reaches everyone, and the next one to ask starts anew', async (t) => {
  const flights = new SingleFlight<number>();
  let runs = 0;
  const failing = async (): Promise<number> => {
    runs += 1;
    await Promise.resolve();
    throw new Error(`run ${runs}`);
  };

  const both = await Promise.all([thrownBy(flights.join('k', {}, failing)), thrownBy(flights.join('k', {}, failing))]);
  const later = await flights.join('k', {}, () => Promise.resolve(7));

  t.deepEqual(
    both.map(({ message }) => message),
    ['run 1', 'run 1'],
  );
  t.deepEqual(later, { result: 7, started: true });
});

test('who gives up while waiting for a slot leaves the queue', async (t) => {
  const slots = new Semaphore(1);
  const held = await slots.acquire();
  const controller = new AbortController();
  const impatient = thrownBy(slots.acquire(controller.signal));
  const patient = slots.acquire();

  controller.abort();
  const error = await impatient;
  held[Symbol.dispose]();
  held[Symbol.dispose]();

  t.is(error.name, 'AbortError');
  await t.notThrowsAsync(patient);
});
