import { existsSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { createImage, descriptorOf, indexOf, noise } from './image-fixture.ts';
import { putImage, putManifest, startRegistry } from './registry-fixture.ts';
import { openStore, thrownBy } from './store-fixture.ts';
import { describePullProgress, type PullProgress } from '../../src/oci/progress.ts';

const twoLayers = createImage({
  layers: [{ 'etc/name': 'lower' }, { 'bin/data': noise(300_000, 'upper') }],
  config: { WorkingDir: '/srv', Labels: { a: 'b' } },
});

test('a pulled image has its configuration, names, blobs and unpacked layers', async (t) => {
  await using registry = await startRegistry();
  await putImage(registry.url, 'team/app', '1.0', twoLayers);
  await using fixture = await openStore();

  const { image, status, digest } = await fixture.store.pull(`${registry.host}/team/app:1.0`);

  t.is(status, 'downloaded');
  t.is(digest, twoLayers.manifest.digest);
  t.is(image.id, twoLayers.config.digest);
  t.deepEqual(image.repoTags, [`${registry.host}/team/app:1.0`]);
  t.deepEqual(image.repoDigests, [`${registry.host}/team/app@${digest}`]);
  t.is(image.config.config.WorkingDir, '/srv');
  t.deepEqual(
    image.layers.map(({ diffId }) => diffId),
    twoLayers.diffIds,
  );
  const { layers } = await fixture.store.rootfs(image);
  t.deepEqual(
    layers.map(({ diffId }) => diffId),
    twoLayers.diffIds,
  );
  t.true(layers.every(({ sizeBytes }) => sizeBytes >= 4096));
  t.is((await fixture.files('blobs/sha256')).length, 4);
  t.deepEqual(await fixture.files('blobs/ingest'), []);
  t.is(fixture.store.resolve(`${registry.host}/team/app@${digest}`).id, image.id);
  t.is(fixture.store.resolve(image.id.slice(7, 19)).id, image.id);
  t.is(fixture.store.resolve(image.id.slice(0, 19)).id, image.id);
});

test('a pull reports what docker prints, and an unchanged second one that it is up to date', async (t) => {
  await using registry = await startRegistry();
  await putImage(registry.url, 'app', 'latest', twoLayers);
  await using fixture = await openStore();
  const events: PullProgress[] = [];

  await fixture.store.pull(`${registry.host}/app`, { onProgress: (event) => events.push(event) });
  const again: PullProgress[] = [];
  const second = await fixture.store.pull(`${registry.host}/app`, { onProgress: (event) => again.push(event) });

  const lines = events.map(describePullProgress);
  const short = twoLayers.layers[1]?.digest.slice(7, 19);
  t.deepEqual(lines[0], { status: 'Pulling from app', id: 'latest' });
  const upper = lines.filter(({ id }) => id === short).map(({ status }) => status);
  t.is(upper[0], 'Pulling fs layer');
  t.deepEqual(
    ['Downloading', 'Verifying Checksum', 'Download complete', 'Extracting', 'Pull complete'].filter(
      (word) => !upper.includes(word),
    ),
    [],
  );
  t.deepEqual(lines.at(-2), { status: `Digest: ${twoLayers.manifest.digest}` });
  t.deepEqual(lines.at(-1), { status: `Status: Downloaded newer image for ${registry.host}/app:latest` });
  t.is(second.status, 'up-to-date');
  t.deepEqual(again.map(describePullProgress).at(-1), {
    status: `Status: Image is up to date for ${registry.host}/app:latest`,
  });
});

test('from an index the amd64 image is taken, and attestations are passed over', async (t) => {
  await using registry = await startRegistry();
  const arm = createImage({ layers: [{ a: 'arm' }], architecture: 'arm64' });
  const attestation = createImage({ layers: [{ a: 'attestation' }], architecture: 'unknown' });
  for (const [position, image] of [arm, attestation, twoLayers].entries())
    await putImage(registry.url, 'app', `part${position}`, image);
  const index = indexOf([
    { ...descriptorOf(attestation.manifest), platform: { os: 'unknown', architecture: 'unknown' } },
    { ...descriptorOf(arm.manifest), platform: { os: 'linux', architecture: 'arm64', variant: 'v8' } },
    { ...descriptorOf(twoLayers.manifest), platform: { os: 'linux', architecture: 'amd64' } },
  ]);
  await putManifest(registry.url, 'app', 'multi', index);
  await using fixture = await openStore();

  const native = await fixture.store.pull(`${registry.host}/app:multi`);
  const foreign = await fixture.store.pull(`${registry.host}/app:multi`, {
    platform: { os: 'linux', architecture: 'arm64' },
  });
  const missing = await thrownBy(
    fixture.store.pull(`${registry.host}/app:multi`, { platform: { os: 'linux', architecture: 's390x' } }),
  );

  t.is(native.image.id, twoLayers.config.digest);
  t.is(native.digest, index.digest);
  t.is(foreign.image.config.architecture, 'arm64');
  t.is(missing.message, 'no matching manifest for linux/s390x in the manifest list entries');
  t.is(missing.code, 'not-found');
});

test('layers shared between images are neither downloaded nor unpacked twice', async (t) => {
  await using registry = await startRegistry();
  const shared = { 'usr/lib': noise(50_000, 'shared') };
  const first = createImage({ layers: [shared, { one: '1' }] });
  const second = createImage({ layers: [shared, { two: '2' }] });
  await putImage(registry.url, 'first', 'latest', first);
  await putImage(registry.url, 'second', 'latest', second);
  await using fixture = await openStore();
  await fixture.store.pull(`${registry.host}/first`);
  const events: PullProgress[] = [];

  await fixture.store.pull(`${registry.host}/second`, { onProgress: (event) => events.push(event) });

  const digest = first.layers[0]?.digest;
  t.deepEqual(
    events.filter((event) => 'digest' in event && event.digest === digest),
    [{ type: 'exists', digest }],
  );
  t.is((await fixture.files('layers')).filter((name) => name.endsWith('.erofs')).length, 3);
});

for (const compression of ['gzip', 'zstd', 'none'] as const) {
  test(`a layer with compression ${compression} is unpacked`, async (t) => {
    await using registry = await startRegistry();
    const image = createImage({ layers: [{ 'etc/os-release': 'x' }], compression });
    await putImage(registry.url, 'app', 'latest', image);
    await using fixture = await openStore();

    const { image: pulled } = await fixture.store.pull(`${registry.host}/app`);

    t.deepEqual(
      pulled.layers.map(({ diffId }) => diffId),
      image.diffIds,
    );
  });
}

test('a pull by digest sets no tag', async (t) => {
  await using registry = await startRegistry();
  await putImage(registry.url, 'app', 'latest', twoLayers);
  await using fixture = await openStore();

  const { image } = await fixture.store.pull(`${registry.host}/app@${twoLayers.manifest.digest}`);

  t.deepEqual(image.repoTags, []);
  t.deepEqual(image.repoDigests, [`${registry.host}/app@${twoLayers.manifest.digest}`]);
});

test('a moved tag leaves the image before without a name', async (t) => {
  await using registry = await startRegistry();
  await putImage(registry.url, 'app', 'latest', twoLayers);
  await using fixture = await openStore();
  const before = await fixture.store.pull(`${registry.host}/app`);
  const newer = createImage({ layers: [{ newer: 'yes' }] });
  await putImage(registry.url, 'app', 'latest', newer);

  const after = await fixture.store.pull(`${registry.host}/app`);

  t.is(after.status, 'downloaded');
  t.deepEqual(fixture.store.get(before.image.id)?.repoTags, []);
  t.deepEqual(after.image.repoTags, [`${registry.host}/app:latest`]);
});

test('a tag that does not exist is reported in the words of docker', async (t) => {
  await using registry = await startRegistry();
  await putImage(registry.url, 'a', 'other', twoLayers);
  await using fixture = await openStore();

  const error = await thrownBy(fixture.store.pull(`${registry.host}/a:b`));

  t.is(error.message, `manifest for ${registry.host}/a:b not found: manifest unknown: manifest unknown`);
  t.is(error.code, 'not-found');
});

test('a layer whose content is not what the configuration says is refused and nothing stays', async (t) => {
  await using registry = await startRegistry();
  const forged = createImage({ layers: [{ a: 'a' }], diffIds: [twoLayers.manifest.digest] });
  await putImage(registry.url, 'forged', 'latest', forged);
  await using fixture = await openStore();

  const error = await thrownBy(fixture.store.pull(`${registry.host}/forged`));

  t.regex(error.message, /could not be unpacked/);
  t.deepEqual(fixture.store.list(), []);
  t.deepEqual(await fixture.files('blobs/sha256'), []);
  t.deepEqual(await fixture.files('layers/ingest'), []);
});

test('what was pulled is there after the store is opened again, and leftovers are swept', async (t) => {
  await using registry = await startRegistry();
  await putImage(registry.url, 'app', 'latest', twoLayers);
  await using fixture = await openStore();
  await fixture.store.pull(`${registry.host}/app`);
  const orphan = join(fixture.root, 'blobs/sha256', 'ab'.repeat(32));
  for (const path of ['blobs/ingest/half', 'layers/ingest/half']) await writeFile(join(fixture.root, path), 'x');
  await writeFile(orphan, 'of a pull that ended before it was recorded');

  await using reopened = await openStore({ root: fixture.root });
  const swept = await reopened.store.gc({ isUsedBy: () => [] });

  t.deepEqual(
    reopened.store.list().map(({ id }) => id),
    [twoLayers.config.digest],
  );
  t.deepEqual([...(await fixture.files('blobs/ingest')), ...(await fixture.files('layers/ingest'))], []);
  t.is(swept.deletedFiles, 1);
  t.is((await reopened.store.rootfs(reopened.store.resolve(`${registry.host}/app`))).layers.length, 2);
});

test('a layer file that went missing is rebuilt from its blob', async (t) => {
  await using registry = await startRegistry();
  await putImage(registry.url, 'app', 'latest', twoLayers);
  await using fixture = await openStore();
  const { image } = await fixture.store.pull(`${registry.host}/app`);
  const before = await fixture.store.rootfs(image);
  for (const { imagePath } of before.layers) await rm(imagePath);

  const after = await fixture.store.rootfs(image);

  t.deepEqual(after, before);
  t.true(after.layers.every(({ imagePath }) => existsSync(imagePath)));
});

test('pulls and removals at the same time leave every listed image whole', async (t) => {
  await using registry = await startRegistry();
  const shared = { 'usr/lib': 'shared' };
  const names = ['one', 'two', 'three'];
  for (const name of names)
    await putImage(registry.url, name, 'latest', createImage({ layers: [shared, { [name]: name }] }));
  await using fixture = await openStore();
  const { store } = fixture;
  const unused = { isUsedBy: () => [] };
  const cycle = async (name: string, rounds: number): Promise<void> => {
    for (let round = 0; round < rounds; round += 1) {
      await store.pull(`${registry.host}/${name}`);
      const image = store.resolve(`${registry.host}/${name}`);
      const { layers } = await store.rootfs(image);
      t.true(layers.every(({ imagePath, sizeBytes }) => sizeBytes > 0 && existsSync(imagePath)));
      await store.remove(`${registry.host}/${name}`, { ...unused, force: true });
      await store.gc(unused);
    }
  };

  await Promise.all(names.map((name) => cycle(name, 5)));

  t.deepEqual(store.list(), []);
  t.deepEqual(await fixture.files('blobs/sha256'), []);
  t.deepEqual(await fixture.files('layers'), ['ingest']);
});
