import test from 'ava';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { listDirectory, makeGate, MIB, sizeOf, until } from '../../machine/machine-fixture.ts';
import { DEFAULT, failing, filled, makePoolFixture, planOf } from './pool-fixture.ts';

test('as many machines wait as were asked for, made one after the other, each with what it is on disk first', async (t) => {
  const fixture = await makePoolFixture(t);
  const recordedFirst: boolean[] = [];
  let running = 0;
  fixture.launcher.before = async (config) => {
    running += 1;
    const text = await readFile(join(config.stateDir, 'machine.json'), 'utf8').catch(() => '{}');
    recordedFirst.push((JSON.parse(text) as { id?: string }).id === config.id && running === 1);
    running -= 1;
  };

  const pool = await filled(fixture.openPool({ size: 3 }), 3);
  pool.refill();
  await pool.close();

  t.deepEqual(recordedFirst, [true, true, true]);
  t.is(fixture.launcher.launched.length, 3);
});

test('a machine that is to wait is made of the saved machine of its size, is jailed, and has a user of its own', async (t) => {
  const fixture = await makePoolFixture(t);

  const pool = await filled(fixture.openPool({ size: 2 }), 2);
  const [one, other] = fixture.launcher.launched.map(({ config }) => config);

  t.is(one?.wall, 'vm');
  t.truthy(one?.machine?.template?.ramPath);
  t.is(one?.machine?.memoryBytes, DEFAULT.memoryBytes);
  t.is(one?.network, undefined);
  t.deepEqual(one?.ports, []);
  t.is(one?.pool?.deadlineMs, 3_000);
  t.is(one?.pool?.keepLayers, false);
  t.not(one?.machine?.uid, other?.machine?.uid);
  t.not(one?.machine?.tapName, other?.machine?.tapName);
  t.not(one?.runtimeDir, other?.runtimeDir);
  await pool.close();
});

test('a pool of 0 makes nothing, gives nothing, and remembers nothing', async (t) => {
  const fixture = await makePoolFixture(t);
  const pool = fixture.openPool({ size: 0 });

  pool.noteStart(DEFAULT, 'a', planOf('a'));
  pool.refill();

  t.is(pool.take(DEFAULT, 'a'), undefined);
  t.is(pool.waiting, 0);
  await pool.close();
  t.is(fixture.launcher.attemptedAtMs.length, 0);
  t.is(fixture.made.length, 0);
});

test('machines are taken in the order in which they were made, at once, and each once', async (t) => {
  const fixture = await makePoolFixture(t);
  const pool = await filled(fixture.openPool({ size: 3 }), 3);
  const made = fixture.launcher.launched.map(({ id }) => id);

  const taken = ['a', 'b', 'c', 'd'].map((image) => pool.take(DEFAULT, image)?.id);

  t.deepEqual(taken, [...made, undefined]);
  t.is(pool.waiting, 0);
  await pool.close();
  t.is(fixture.launcher.living.length, 3, 'what was taken is the taker’s');
});

test('a size that was never wanted has no machine at first, and has one after the next refill; the default one keeps its own', async (t) => {
  const fixture = await makePoolFixture(t);
  const pool = await filled(fixture.openPool(), 1);

  const first = pool.take(sizeOf(512), 'a');
  await filled(pool, 2);
  const second = pool.take(sizeOf(512), 'a');

  t.is(first, undefined);
  t.is(second?.memoryBytes, sizeOf(512).memoryBytes);
  t.is(pool.take(sizeOf(512, 2), 'a'), undefined);
  t.is(pool.take(DEFAULT, 'a')?.memoryBytes, DEFAULT.memoryBytes);
  await pool.close();
});

test('machines wait for the default size and the three that were wanted last; those of the others are ended', async (t) => {
  const fixture = await makePoolFixture(t);
  const pool = await filled(fixture.openPool(), 1);

  for (const mib of [384, 512, 768, 1024]) {
    pool.take(sizeOf(mib), 'a');
    pool.refill();
    await until(`one of ${mib} MiB waits`, () =>
      fixture.launcher.living.some(({ config }) => config.machine?.memoryBytes === sizeOf(mib).memoryBytes),
    );
  }
  await until('the fill is over', () => pool.waiting === 4);
  await until('the one of 384 MiB is ended', () => fixture.launcher.living.length === 4);
  const sizes = fixture.launcher.living.map(({ config }) => (config.machine?.memoryBytes ?? 0) / MIB).sort();

  t.deepEqual(sizes, [1024, 256, 512, 768]);
  await pool.close();
});

test('a machine whose size is not wanted any more when it is ready is ended', async (t) => {
  const fixture = await makePoolFixture(t);
  const pool = await filled(fixture.openPool(), 1);
  const gate = makeGate();
  fixture.launcher.before = () => gate.opened;
  pool.take(sizeOf(384), 'a');
  pool.refill();
  await until('a machine of 384 MiB is being made', () => fixture.launcher.attemptedAtMs.length === 2);

  for (const mib of [512, 768, 1024]) pool.take(sizeOf(mib), 'a');
  gate.open();
  await until('the others wait', () => pool.waiting === 4);
  const sizes = fixture.launcher.living.map(({ config }) => (config.machine?.memoryBytes ?? 0) / MIB).sort();
  await pool.close();

  t.deepEqual(sizes, [1024, 256, 512, 768]);
  t.deepEqual(fixture.launcher.living, []);
  t.deepEqual(await listDirectory(fixture.poolDirectory), []);
});

test('waiting machines get no more than a quarter of the memory of the host, all sizes together', async (t) => {
  const fixture = await makePoolFixture(t);
  const pool = fixture.openPool({ size: 8, hostMemoryBytes: 4 * 3 * 256 * MIB });

  await filled(pool, 3);
  pool.take(sizeOf(512), 'a');
  await fixture.openTemplates().settle();
  pool.refill();
  await until('nothing is being filled', async () => {
    await pool.close();
    return true;
  });

  t.is(fixture.launcher.launched.length, 3);
});

test('a host that is short of memory gets no waiting machines', async (t) => {
  const fixture = await makePoolFixture(t);
  // More than there is: the quarter would allow it, what is free does not.
  const pool = fixture.openPool({ defaultClass: sizeOf(64 * 1024 * 1024), hostMemoryBytes: 2 ** 52 });

  pool.refill();
  await until('the saved machine stands', () => fixture.made.length === 1);
  await pool.close();

  t.is(fixture.launcher.attemptedAtMs.length, 0);
});

test('after a machine did not come up the next try waits, longer each time, and not any more after a success', async (t) => {
  const fixture = await makePoolFixture(t);
  fixture.launcher.before = failing(() => fixture.launcher.attemptedAtMs.length <= 2);
  const pool = fixture.openPool();

  pool.refill();
  await until('the first try has failed', () => fixture.logged.some(({ delayMs }) => delayMs !== undefined));
  pool.refill();
  pool.refill();
  await until('one waits', () => pool.waiting === 1, 20_000);
  const [first = 0, second = 0, third = 0, ...more] = fixture.launcher.attemptedAtMs;
  pool.take(DEFAULT, 'a');
  await filled(pool, 1);

  t.deepEqual(
    fixture.logged.flatMap(({ delayMs }) => delayMs ?? []),
    [1_000, 2_000],
  );
  t.true(second - first >= 990, `${second - first} ms`);
  t.true(third - second >= 1_990, `${third - second} ms`);
  t.deepEqual(more, []);
  await pool.close();
});

test('machines that did not come up leave their consoles, four at most, and nothing else', async (t) => {
  const fixture = await makePoolFixture(t);
  const uid = fixture.machine.allocateUid('before');
  fixture.machine.releaseUid(uid);
  const failed: string[] = [];
  fixture.launcher.before = (config) => {
    failed.push(config.id);
    return Promise.reject(new Error('it hangs'));
  };
  // Each pool is a new daemon: it does not wait for the retry of the one before.
  for (let daemon = 0; daemon < 6; daemon++) {
    const pool = fixture.openPool();
    pool.refill();
    await until('it has failed', () => fixture.logged.filter(({ delayMs }) => delayMs !== undefined).length > daemon);
    await pool.close();
  }

  const left = await listDirectory(fixture.poolDirectory);
  const latest = `discarded-${failed.at(-1)?.slice(0, 12) ?? ''}.log`;

  t.is(left.length, 4);
  t.true(
    left.every((name) => /^discarded-[0-9a-f]{12}\.log$/.test(name)),
    left.join(),
  );
  t.is(await readFile(join(fixture.poolDirectory, latest), 'utf8'), `console of ${failed.at(-1) ?? ''}`);
  t.deepEqual(await listDirectory(join(fixture.directory, 's')), []);
  t.is(fixture.machine.allocateUid('after'), uid);
});

test('without a saved machine none waits', async (t) => {
  const fixture = await makePoolFixture(t);
  const pool = fixture.openPool({ templates: fixture.openTemplates(() => Promise.reject(new Error('no disk'))) });

  pool.refill();
  await until('saving was tried', () => fixture.made.length === 1);
  await pool.close();

  t.is(fixture.launcher.attemptedAtMs.length, 0);
});

test('closing ends what waits and what is on its way, waits for it, and nothing is made afterwards', async (t) => {
  const fixture = await makePoolFixture(t);
  const pool = await filled(fixture.openPool({ size: 2 }), 2);
  pool.take(DEFAULT, 'a');
  const gate = makeGate();
  fixture.launcher.before = () => gate.opened;
  pool.refill();
  await until('one is on its way', () => fixture.launcher.attemptedAtMs.length === 3);

  const closing = pool.close();
  gate.open();
  await closing;
  pool.refill();
  const living = fixture.launcher.living.map(({ id }) => id);

  t.deepEqual(living, [fixture.launcher.launched[0]?.id], 'only the one that was taken');
  t.is(pool.waiting, 0);
  t.is(fixture.launcher.attemptedAtMs.length, 3);
  t.deepEqual(
    fixture.launcher.launched.slice(1).map(({ stops, releases }) => [stops, releases]),
    [
      [1, 1],
      [1, 1],
    ],
  );
});

test('closing while a retry is due ends the retry', async (t) => {
  const fixture = await makePoolFixture(t);
  fixture.launcher.before = failing();
  const pool = fixture.openPool();
  pool.refill();
  await until('it has failed', () => fixture.logged.some(({ delayMs }) => delayMs !== undefined));

  await pool.close();
  pool.refill();

  t.is(fixture.launcher.attemptedAtMs.length, 1);
});

test('a machine that was taken and not used leaves nothing', async (t) => {
  const fixture = await makePoolFixture(t);
  const pool = await filled(fixture.openPool(), 1);
  const taken = pool.take(DEFAULT, 'a');
  if (!taken) throw new Error('none waited');

  await pool.discard(taken);

  t.deepEqual(fixture.launcher.living, []);
  t.deepEqual(await listDirectory(fixture.poolDirectory), []);
  t.deepEqual(await listDirectory(join(fixture.directory, 's')), []);
  t.is(fixture.machine.allocateUid('after'), taken.uid);
  await pool.close();
});
