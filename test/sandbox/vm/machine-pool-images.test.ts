import test from 'ava';
import { join } from 'node:path';
import { listDirectory, makeGate, until } from '../../machine/machine-fixture.ts';
import { DEFAULT, failing, filled, makePoolFixture, planOf } from './pool-fixture.ts';

test('a machine is prepared for an image only after two starts in a row, and is given to that image first', async (t) => {
  const fixture = await makePoolFixture(t);
  const pool = await filled(fixture.openPool(), 1);
  const startOf = async (image: string): Promise<string | undefined> => {
    const taken = pool.take(DEFAULT, image);
    pool.noteStart(DEFAULT, image, planOf(image));
    await filled(pool, 1);
    return taken?.image;
  };

  const seen = [];
  for (const image of ['a', 'b', 'a', 'b', 'b', 'b', 'a', 'a', 'a']) seen.push(await startOf(image));

  // The start after the second of b finds one prepared for b; the first of a gets that as well, for want of another.
  t.deepEqual(seen, [undefined, undefined, undefined, undefined, undefined, 'b', 'b', undefined, 'a']);
  t.deepEqual(
    fixture.launcher.launched.map(({ image }) => image),
    [undefined, undefined, undefined, undefined, undefined, 'b', 'b', undefined, 'a', 'a'],
  );
  await pool.close();
});

test('of several machines the one with the image is taken, wherever it stands; only one is prepared', async (t) => {
  const fixture = await makePoolFixture(t);
  const pool = fixture.openPool({ size: 3 });
  pool.noteStart(DEFAULT, 'a', planOf('a'));
  pool.noteStart(DEFAULT, 'a', planOf('a'));
  await filled(pool, 3);
  pool.take(DEFAULT, 'z'); // The prepared one: it came first.
  await filled(pool, 3);

  const images = fixture.launcher.launched.map(({ image }) => image);
  const taken = [pool.take(DEFAULT, 'a'), pool.take(DEFAULT, 'a')];

  t.deepEqual(images, ['a', undefined, undefined, 'a']);
  t.is(taken[0]?.id, fixture.launcher.launched[3]?.id);
  t.is(taken[1]?.id, fixture.launcher.launched[1]?.id);
  await pool.close();
});

test('no machine is prepared for an image where that is switched off', async (t) => {
  const fixture = await makePoolFixture(t);
  const pool = fixture.openPool({ preparesImages: false });

  for (let start = 0; start < 3; start++) pool.noteStart(DEFAULT, 'a', planOf('a'));
  await filled(pool, 1);

  t.deepEqual(
    fixture.launcher.launched.map(({ image }) => image),
    [undefined],
  );
  t.deepEqual(pool.images(), []);
  await pool.close();
});

test('an image that no machine comes up with is not tried again; one for any image waits instead, without delay', async (t) => {
  const fixture = await makePoolFixture(t);
  const prepared: string[] = [];
  fixture.launcher.before = failing((config) => {
    if (config.pool?.keepLayers) prepared.push(config.id);
    return config.pool?.keepLayers === true;
  });
  const pool = fixture.openPool();
  for (let start = 0; start < 4; start++) {
    pool.noteStart(DEFAULT, 'a', planOf('a'));
    await filled(pool, 1);
    pool.take(DEFAULT, 'a');
  }

  t.is(prepared.length, 1);
  t.is(fixture.launcher.launched.length, 4);
  t.deepEqual(
    fixture.logged.filter(({ delayMs }) => delayMs !== undefined),
    [],
  );
  await pool.close();
});

test('an image whose warm-up cannot even be planned is no obstacle', async (t) => {
  const fixture = await makePoolFixture(t);
  const pool = fixture.openPool();
  pool.noteStart(DEFAULT, 'a', planOf('a'));
  pool.noteStart(DEFAULT, 'a', () => Promise.reject(new Error('its layers are gone')));

  await filled(pool, 1);

  t.is(fixture.launcher.launched[0]?.image, undefined);
  await pool.close();
  t.deepEqual(await listDirectory(join(fixture.directory, 's')), []);
});

test('a deleted image takes the machines with it that were prepared for it, and only those; others wait instead', async (t) => {
  const fixture = await makePoolFixture(t);
  const pool = fixture.openPool({ size: 2 });
  pool.noteStart(DEFAULT, 'a', planOf('a'));
  pool.noteStart(DEFAULT, 'a', planOf('a'));
  await filled(pool, 2);
  const [prepared, other] = fixture.launcher.launched;

  await pool.dropImage('a');
  const living = fixture.launcher.living.map(({ id }) => id);
  await filled(pool, 2);

  t.false(living.includes(prepared?.id ?? ''));
  t.true(living.includes(other?.id ?? ''));
  t.deepEqual(pool.images(), []);
  t.deepEqual(
    fixture.launcher.launched.map(({ image }) => image),
    ['a', undefined, undefined],
  );
  await pool.close();
});

test('an image that is deleted while a machine is being prepared for it is not kept by that machine', async (t) => {
  const fixture = await makePoolFixture(t);
  const pool = fixture.openPool();
  const gate = makeGate();
  fixture.launcher.before = () => gate.opened;
  pool.noteStart(DEFAULT, 'a', planOf('a'));
  pool.noteStart(DEFAULT, 'a', planOf('a'));
  pool.refill();
  await until('it is on its way', () => fixture.launcher.attemptedAtMs.length === 1);

  const images = pool.images();
  const dropping = pool.dropImage('a');
  gate.open();
  await dropping;
  const prepared = fixture.launcher.living.filter(({ image }) => image === 'a');
  await filled(pool, 1);

  t.deepEqual(images, ['a'], 'who deletes images asks for it');
  t.deepEqual(prepared, []);
  t.deepEqual(pool.images(), []);
  await pool.close();
});
