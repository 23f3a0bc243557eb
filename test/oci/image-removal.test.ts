import { Readable } from 'node:stream';
import test from 'ava';
import { chainIds } from '../../src/core/digest.ts';
import { parseImageReference } from '../../src/core/image-reference.ts';
import { createImage, layoutArchive, tarOf } from './image-fixture.ts';
import { openStore, thrownBy, type StoreFixture } from './store-fixture.ts';

const image = createImage({ layers: [{ shared: 's' }, { own: 'o' }] });
const sibling = createImage({ layers: [{ shared: 's' }, { other: 'x' }] });
const unused = { isUsedBy: () => [] };
const CONTAINER = 'c0ffee'.repeat(10) + 'c0ff';

async function storeWith(...names: string[]): Promise<StoreFixture> {
  const fixture = await openStore();
  await fixture.store.load(Readable.from([layoutArchive(image, names[0])]));
  for (const name of names.slice(1)) fixture.store.tag(image.config.digest, name);
  return fixture;
}

async function erofsFiles(fixture: StoreFixture): Promise<string[]> {
  return (await fixture.files('layers')).filter((name) => name.endsWith('.erofs'));
}

test('a name is taken away, the image goes with its last one', async (t) => {
  await using fixture = await storeWith('a:1', 'b:1');

  const first = await fixture.store.remove('a:1', unused);
  const last = await fixture.store.remove('b:1', unused);

  const chain = chainIds(image.diffIds).reverse();
  t.deepEqual(first, [{ untagged: 'a:1' }]);
  t.deepEqual(last, [{ untagged: 'b:1' }, { deleted: image.config.digest }, ...chain.map((deleted) => ({ deleted }))]);
  t.deepEqual(await fixture.files('blobs/sha256'), []);
  t.deepEqual(await erofsFiles(fixture), []);
  t.is((await thrownBy(() => fixture.store.resolve('b:1'))).message, 'No such image: b:1');
});

test('what another image shares stays', async (t) => {
  await using fixture = await storeWith('a:1');
  await fixture.store.load(Readable.from([layoutArchive(sibling, 'sibling:1')]));

  await fixture.store.remove('a:1', unused);

  t.is((await fixture.files('blobs/sha256')).length, 4);
  t.is((await fixture.store.rootfs(fixture.store.resolve('sibling:1'))).layers.length, 2);
  t.is((await erofsFiles(fixture)).length, 2);
});

test('an ID with names in several repositories needs force', async (t) => {
  await using fixture = await storeWith('a:1', 'b:1');
  const short = image.config.digest.slice(7, 19);

  const error = await thrownBy(fixture.store.remove(short, unused));
  const removed = await fixture.store.remove(short, { ...unused, force: true });

  t.is(
    error.message,
    `conflict: unable to delete ${short} (must be forced) - image is referenced in multiple repositories`,
  );
  t.is(error.code, 'conflict');
  t.deepEqual(removed.slice(0, 3), [{ untagged: 'a:1' }, { untagged: 'b:1' }, { deleted: image.config.digest }]);
});

test('an image with one name is removed by its ID', async (t) => {
  await using fixture = await storeWith('a:1');

  const removed = await fixture.store.remove(image.config.digest, unused);

  t.deepEqual(removed.slice(0, 2), [{ untagged: 'a:1' }, { deleted: image.config.digest }]);
  t.deepEqual(fixture.store.list(), []);
});

test('an image that a container uses is kept, in the words of docker', async (t) => {
  await using fixture = await storeWith('a:1');
  const short = image.config.digest.slice(7, 19);
  const usedBy = (isRunning: boolean) => ({ isUsedBy: () => [{ containerId: CONTAINER, isRunning }] });

  const byName = await thrownBy(fixture.store.remove('a:1', usedBy(false)));
  const stopped = await thrownBy(fixture.store.remove(short, usedBy(false)));
  const running = await thrownBy(fixture.store.remove(short, { ...usedBy(true), force: true }));

  t.is(
    byName.message,
    `conflict: unable to remove repository reference "a:1" (must force) - container c0ffeec0ffee is using its referenced image ${short}`,
  );
  t.is(
    stopped.message,
    `conflict: unable to delete ${short} (must be forced) - image is being used by stopped container c0ffeec0ffee`,
  );
  t.is(
    running.message,
    `conflict: unable to delete ${short} (cannot be forced) - image is being used by running container c0ffeec0ffee`,
  );
  t.is(fixture.store.resolve('a:1').id, image.config.digest);
});

test('forced away from a stopped container, the files stay until the container is gone', async (t) => {
  await using fixture = await storeWith('a:1');
  let containers = [{ containerId: CONTAINER, isRunning: false }];
  const isUsedBy = (): typeof containers => containers;

  const removed = await fixture.store.remove('a:1', { isUsedBy, force: true });
  const kept = await fixture.store.gc({ isUsedBy });
  const record = fixture.store.get(image.config.digest);
  const rootfs = record && (await fixture.store.rootfs(record));
  containers = [];
  const swept = await fixture.store.gc({ isUsedBy });

  t.deepEqual(removed, [{ untagged: 'a:1' }, { deleted: image.config.digest }]);
  t.deepEqual(fixture.store.list(), []);
  t.is(kept.deletedFiles, 0);
  t.is(rootfs?.layers.length, 2);
  t.is(swept.deletedFiles, 6);
  t.deepEqual(await fixture.files('blobs/sha256'), []);
});

test('an image with children is not removed, and a nameless parent goes with its last child', async (t) => {
  await using fixture = await storeWith('base:1');
  const base = fixture.store.resolve('base:1');
  await using held = await fixture.store.ingestLayer(Readable.from([tarOf({ made: 'here' })]));
  const child = await fixture.store.create({
    config: { os: 'linux', architecture: 'amd64', config: { Cmd: ['/made'] } },
    layers: [...base.layers, held.layer],
    parent: base.id,
    tags: [parseImageReference('child:1')],
  });

  const error = await thrownBy(fixture.store.remove(base.id, { ...unused, force: true }));
  const untagged = await fixture.store.remove('base:1', unused);
  const removed = await fixture.store.remove('child:1', unused);

  t.regex(error.message, /\(cannot be forced\) - image has dependent child images$/);
  t.deepEqual(untagged, [{ untagged: 'base:1' }]);
  t.deepEqual(removed.flatMap((entry) => ('deleted' in entry ? [entry.deleted] : [])).slice(0, 2), [
    child.id,
    chainIds(child.layers.map(({ diffId }) => diffId)).at(-1),
  ]);
  t.true(removed.some((entry) => 'deleted' in entry && entry.deleted === base.id));
  t.deepEqual(fixture.store.list(), []);
});

test('a layer made here and then given up leaves nothing', async (t) => {
  await using fixture = await openStore();

  const held = await fixture.store.ingestLayer(Readable.from([tarOf({ made: 'here' })]));
  const during = await erofsFiles(fixture);
  await held[Symbol.asyncDispose]();

  t.is(during.length, 1);
  t.deepEqual(await erofsFiles(fixture), []);
  t.deepEqual(await fixture.files('blobs/sha256'), []);
});

test('tags are checked as docker checks them', async (t) => {
  await using fixture = await storeWith('a:1');

  t.is((await thrownBy(() => fixture.store.tag('missing', 'b'))).message, 'No such image: missing:latest');
  t.is(
    (await thrownBy(() => fixture.store.tag('a:1', 'B'))).message,
    'invalid reference format: repository name (library/B) must be lowercase',
  );
  t.is(
    (await thrownBy(() => fixture.store.tag('a:1', 'sha256:x'))).message,
    'refusing to create an ambiguous tag using digest algorithm as name',
  );
  t.deepEqual(fixture.store.tag('a:1', 'localhost:5000/b').repoTags, ['a:1', 'localhost:5000/b:latest']);
});

test('history shows the newest step first with the size of its layer', async (t) => {
  await using fixture = await storeWith('a:1');

  const history = fixture.store.history(fixture.store.resolve('a:1'));

  t.deepEqual(
    history.map(({ id, createdBy }) => [id, createdBy]),
    [
      [image.config.digest, 'step 1'],
      ['<missing>', 'step 0'],
    ],
  );
  t.true(history.every(({ sizeBytes }) => sizeBytes > 0));
});
