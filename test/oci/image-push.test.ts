import { execFile } from 'node:child_process';
import { Readable } from 'node:stream';
import { promisify } from 'node:util';
import test from 'ava';
import { describePushProgress, type PushProgress } from '../../src/oci/progress.ts';
import { createImage, layoutArchive, noise } from './image-fixture.ts';
import { putImage, startRegistry } from './registry-fixture.ts';
import { openStore, thrownBy } from './store-fixture.ts';

const run = promisify(execFile);
const image = createImage({ layers: [{ lower: 'l' }, { upper: noise(400_000, 'push') }] });

test('what was pulled is pushed with the same digest, and skopeo reads it', async (t) => {
  await using source = await startRegistry();
  await using target = await startRegistry();
  await putImage(source.url, 'app', '1', image);
  await using fixture = await openStore();
  await fixture.store.pull(`${source.host}/app:1`);
  fixture.store.tag(`${source.host}/app:1`, `${target.host}/copy/app:2`);
  const events: PushProgress[] = [];

  const [pushed] = await fixture.store.push(`${target.host}/copy/app:2`, { onProgress: (event) => events.push(event) });
  const inspected = await run('skopeo', ['inspect', '--tls-verify=false', `docker://${target.host}/copy/app:2`]);

  t.is(pushed?.digest, image.manifest.digest);
  t.like(JSON.parse(inspected.stdout), {
    Digest: image.manifest.digest,
    Layers: image.layers.map(({ digest }) => digest),
  });
  const lines = events.flatMap(describePushProgress);
  t.deepEqual(lines[0], { status: `The push refers to repository [${target.host}/copy/app]` });
  const upper = lines.filter(({ id }) => id === image.diffIds[1]?.slice(7, 19)).map(({ status }) => status);
  t.is(upper[0], 'Preparing');
  t.is(upper.at(-1), 'Pushed');
  t.deepEqual(lines.at(-2), { status: `2: digest: ${image.manifest.digest} size: ${image.manifest.size}` });
  t.deepEqual(lines.at(-1)?.aux, { Tag: '2', Digest: image.manifest.digest, Size: image.manifest.size });
  t.true(
    fixture.store
      .resolve(`${target.host}/copy/app:2`)
      .repoDigests.includes(`${target.host}/copy/app@${image.manifest.digest}`),
  );
});

test('a second push sends nothing, and another repository mounts what is there', async (t) => {
  await using registry = await startRegistry();
  await using fixture = await openStore();
  await fixture.store.load(Readable.from([layoutArchive(image, `${registry.host}/one:1`)]));
  await fixture.store.push(`${registry.host}/one:1`);
  fixture.store.tag(`${registry.host}/one:1`, `${registry.host}/two:1`);
  const again: PushProgress[] = [];
  const mounted: PushProgress[] = [];

  await fixture.store.push(`${registry.host}/one:1`, { onProgress: (event) => again.push(event) });
  await fixture.store.push(`${registry.host}/two:1`, { onProgress: (event) => mounted.push(event) });

  t.is(again.filter(({ type }) => type === 'exists').length, 2);
  t.deepEqual(
    mounted.flatMap((event) => (event.type === 'mounted' ? [event.from] : [])),
    ['one', 'one'],
  );
});

test('without a tag every tag of the repository is pushed', async (t) => {
  await using registry = await startRegistry();
  await using fixture = await openStore();
  await fixture.store.load(Readable.from([layoutArchive(image, `${registry.host}/app:1`)]));
  fixture.store.tag(`${registry.host}/app:1`, `${registry.host}/app:2`);

  const pushed = await fixture.store.push(`${registry.host}/app`);

  t.deepEqual(
    pushed.map(({ tag }) => tag),
    ['1', '2'],
  );
});

test('what is not here cannot be pushed', async (t) => {
  await using fixture = await openStore();
  await fixture.store.load(Readable.from([layoutArchive(image, 'localhost:1/app:1')]));

  const noRepository = await thrownBy(fixture.store.push('localhost:1/nothing:1'));
  const noTag = await thrownBy(fixture.store.push('localhost:1/app:2'));

  t.is(noRepository.message, 'An image does not exist locally with the tag: localhost:1/nothing');
  t.is(noTag.message, 'tag does not exist: localhost:1/app:2');
});

test('a mirror of the hub is asked first, and the hub’s name is what the image gets', async (t) => {
  await using mirror = await startRegistry();
  await putImage(mirror.url, 'library/demo', 'latest', image);
  await using fixture = await openStore({ registry: { mirrors: [mirror.url] } });

  const { image: pulled } = await fixture.store.pull('demo');

  t.deepEqual(pulled.repoTags, ['demo:latest']);
  t.deepEqual(pulled.repoDigests, [`demo@${image.manifest.digest}`]);
});
