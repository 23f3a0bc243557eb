import test from 'ava';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { listDirectory } from '../../machine/machine-fixture.ts';
import type { FakeLauncher } from './fake-launcher.ts';
import { DEFAULT, filled, makePoolFixture, planOf, type PoolFixture } from './pool-fixture.ts';

test('a machine that was handed over keeps its runtime directory and its user, and the pool forgets it', async (t) => {
  const fixture = await makePoolFixture(t);
  const pool = await filled(fixture.openPool(), 1);
  const taken = pool.take(DEFAULT, 'a');
  if (!taken) throw new Error('none waited');

  await pool.handedOver(taken);
  await pool.close();
  await fixture.openPool().adopt(new Set([taken.runtimeDir]));

  t.is(fixture.launcher.living.length, 1);
  t.deepEqual(await listDirectory(fixture.poolDirectory), []);
  t.is((await listDirectory(join(fixture.directory, 's'))).length, 1);
  t.not(fixture.machine.allocateUid('after'), taken.uid);
});

test('the next daemon takes up what waits, keeps its user, and makes no other', async (t) => {
  const fixture = await makePoolFixture(t);
  await filled(fixture.openPool(), 1);
  const [left] = fixture.launcher.launched;

  const pool = fixture.openPool();
  await pool.adopt(new Set());
  pool.refill();
  const taken = pool.take(DEFAULT, 'a');

  t.is(taken?.id, left?.id);
  t.is(taken?.sandbox.id, left?.id);
  t.is(fixture.launcher.launched.length, 1);
  await pool.close();
});

test('the next daemon knows what a machine was prepared for', async (t) => {
  const fixture = await makePoolFixture(t);
  const before = fixture.openPool({ size: 2 });
  before.noteStart(DEFAULT, 'a', planOf('a'));
  before.noteStart(DEFAULT, 'a', planOf('a'));
  await filled(before, 2);

  const pool = fixture.openPool({ size: 2 });
  await pool.adopt(new Set());

  t.deepEqual(pool.images(), ['a']);
  t.is(pool.take(DEFAULT, 'a')?.image, 'a');
  t.is(pool.take(DEFAULT, 'a')?.image, undefined);
});

test('the next daemon ends more than are to wait', async (t) => {
  const fixture = await makePoolFixture(t);
  await filled(fixture.openPool({ size: 3 }), 3);

  const one = fixture.openPool({ size: 1 });
  await one.adopt(new Set());
  const left = fixture.launcher.living.length;
  const none = fixture.openPool({ size: 0 });
  await none.adopt(new Set());

  t.is(one.waiting, 1);
  t.is(left, 1);
  t.is(none.waiting, 0);
  t.deepEqual(fixture.launcher.living, []);
  t.deepEqual(await listDirectory(fixture.poolDirectory), []);
});

/** What the next daemon may find of a machine, apart from one that it can take up. */
const remains: readonly [string, (fixture: PoolFixture) => Promise<void>, boolean][] = [
  ['still warms up', ({ launcher }) => each(launcher, (one) => (one.state = 'warming')), false],
  ['was assigned to nobody that is known', ({ launcher }) => each(launcher, (one) => (one.state = 'ready')), false],
  ['has lost its shim', ({ launcher }) => each(launcher, (one) => (one.isDead = true)), false],
  ['has ended', ({ launcher }) => each(launcher, (one) => (one.state = 'ended')), false],
  ['is of another kernel', ({ base }) => writeFile(base.kernelPath, 'another one'), false],
  ['belongs to a container', () => Promise.resolve(), true],
];

async function each(launcher: FakeLauncher, change: (one: FakeLauncher['launched'][number]) => void): Promise<void> {
  launcher.launched.forEach(change);
  return Promise.resolve();
}

for (const [what, happen, isClaimed] of remains) {
  test(`the next daemon does not keep a machine that ${what}`, async (t) => {
    const fixture = await makePoolFixture(t);
    await filled(fixture.openPool(), 1);
    const runtimeDirs = fixture.launcher.launched.map(({ config }) => config.runtimeDir);
    await happen(fixture);

    const pool = fixture.openPool();
    await pool.adopt(new Set(isClaimed ? runtimeDirs : []));
    const sandboxes = await listDirectory(join(fixture.directory, 's'));

    t.is(pool.waiting, 0);
    t.deepEqual(await listDirectory(fixture.poolDirectory), []);
    // What a container has is its own: not even looked at.
    t.is(sandboxes.length, isClaimed ? 1 : 0);
    t.is(fixture.launcher.living.length, isClaimed ? 1 : 0);
    await filled(pool, 1);
    await pool.close();
  });
}

test('directories without a record and with one that says nothing are removed; kept consoles stay', async (t) => {
  const fixture = await makePoolFixture(t);
  await mkdir(join(fixture.poolDirectory, 'begun'));
  for (const [name, text] of Object.entries({ empty: '', half: '{"id":"x"', foreign: '{"id":"x","key":"y"}' })) {
    await mkdir(join(fixture.poolDirectory, name));
    await writeFile(join(fixture.poolDirectory, name, 'machine.json'), text);
  }
  await writeFile(join(fixture.poolDirectory, 'discarded-0123456789ab.log'), 'console');

  const pool = fixture.openPool();
  await pool.adopt(new Set());

  t.is(pool.waiting, 0);
  t.deepEqual(await listDirectory(fixture.poolDirectory), ['discarded-0123456789ab.log']);
});

test('a host whose kernel cannot be read any more keeps no machine that was made with it', async (t) => {
  const fixture = await makePoolFixture(t);
  await filled(fixture.openPool(), 1);
  await rm(fixture.base.kernelPath);

  const pool = fixture.openPool();
  await t.notThrowsAsync(pool.adopt(new Set()));

  t.is(pool.waiting, 0);
  t.deepEqual(fixture.launcher.living, []);
});
