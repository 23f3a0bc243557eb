import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createWriteStream } from 'node:fs';
import { promisify } from 'node:util';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import test from 'ava';
import { pack } from 'tar-stream';
import { hexOfDigest } from '../../src/core/digest.ts';
import { describeLoadedImage } from '../../src/oci/image-load.ts';
import { createImage, layoutArchive, noise, tarOf } from './image-fixture.ts';
import { openStore, thrownBy, type StoreFixture } from './store-fixture.ts';

const run = promisify(execFile);
const image = createImage({ layers: [{ lower: 'l' }, { upper: noise(200_000, 'archive') }] });
const plain = createImage({ layers: [{ lower: 'l' }, { upper: 'u' }], compression: 'none' });

/** As `docker save` before version 25 wrote it: uncompressed layers in directories. */
function dockerArchive(overrides: Readonly<Record<string, string | Buffer>> = {}): Buffer {
  return tarOf({
    [`${hexOfDigest(plain.config.digest)}.json`]: plain.config.bytes,
    'aaa/layer.tar': plain.layers[0]?.bytes ?? '',
    'bbb/layer.tar': plain.layers[1]?.bytes ?? '',
    'manifest.json': JSON.stringify([
      {
        Config: `${hexOfDigest(plain.config.digest)}.json`,
        RepoTags: ['app:1', 'other/app:2'],
        Layers: ['aaa/layer.tar', 'bbb/layer.tar'],
      },
    ]),
    ...overrides,
  });
}

async function isEmpty({ store, files }: StoreFixture): Promise<boolean> {
  const layers = (await files('layers')).filter((name) => name.endsWith('.erofs'));
  const names = [
    ...(await files('blobs/sha256')),
    ...(await files('blobs/ingest')),
    ...(await files('layers/ingest')),
    ...layers,
  ];
  return store.list().length === 0 && names.length === 0;
}

for (const [form, wrap] of [
  ['plain', (tar: Buffer) => tar],
  ['gzip', (tar: Buffer) => gzipSync(tar)],
  ['zstd', (tar: Buffer) => zstdCompressSync(tar)],
] as const) {
  test(`a docker archive is loaded from a ${form} tar`, async (t) => {
    await using fixture = await openStore();

    const loaded = await fixture.store.load(Readable.from([wrap(dockerArchive())]));

    t.deepEqual(loaded.flatMap(describeLoadedImage), ['Loaded image: app:1\n', 'Loaded image: other/app:2\n']);
    const record = fixture.store.resolve('other/app:2');
    t.is(record.id, plain.config.digest);
    t.deepEqual(
      record.layers.map(({ diffId }) => diffId),
      plain.diffIds,
    );
    t.is((await fixture.store.rootfs(record)).layers.length, 2);
    t.is((await fixture.files('blobs/sha256')).length, 4);
  });
}

test('an OCI layout is loaded, with the manifest it came with', async (t) => {
  await using fixture = await openStore();

  const loaded = await fixture.store.load(Readable.from([layoutArchive(image, 'demo:1')]));

  t.deepEqual(loaded, [{ id: image.config.digest, names: ['demo:1'] }]);
  t.is(fixture.store.resolve('demo:1').manifestDigest, image.manifest.digest);
});

test('an image without a name is reported by its ID', async (t) => {
  await using fixture = await openStore();

  const loaded = await fixture.store.load(Readable.from([layoutArchive(image, 'latest')]));

  t.deepEqual(loaded.flatMap(describeLoadedImage), [`Loaded image ID: ${image.config.digest}\n`]);
});

test('what is saved is loaded again the same, in another store', async (t) => {
  await using source = await openStore();
  await source.store.load(Readable.from([layoutArchive(image, 'demo:1')]));
  await source.store.load(Readable.from([dockerArchive()]));
  source.store.tag('demo:1', 'demo:2');

  const archive = await buffer(source.store.save(['demo', 'app:1']));
  await using target = await openStore();
  const loaded = await target.store.load(Readable.from([archive]));

  t.deepEqual(
    loaded.map(({ names }) => names),
    [['demo:1', 'demo:2'], ['app:1']],
  );
  t.is(target.store.resolve('demo:2').manifestDigest, image.manifest.digest);
  t.is(target.store.resolve('app:1').id, plain.config.digest);
});

test('skopeo reads a saved archive as docker-archive and as OCI layout', async (t) => {
  await using fixture = await openStore();
  await fixture.store.load(Readable.from([layoutArchive(image, 'demo:1')]));
  const directory = await mkdtemp(join(tmpdir(), 'bulkhead-save-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const path = join(directory, 'image.tar');
  await pipeline(fixture.store.save(['demo:1']), createWriteStream(path));

  const docker = await run('skopeo', ['inspect', '--config', `docker-archive:${path}:demo:1`]);
  const oci = await run('skopeo', ['inspect', `oci-archive:${path}`]);

  t.like(JSON.parse(docker.stdout), { rootfs: { diff_ids: image.diffIds } });
  t.like(JSON.parse(oci.stdout), { Digest: image.manifest.digest });
});

test('what skopeo writes is loaded', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'bulkhead-load-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  await writeFile(join(directory, 'layout.tar'), layoutArchive(image));
  const source = `oci-archive:${join(directory, 'layout.tar')}`;
  await run('skopeo', [
    'copy',
    '--insecure-policy',
    source,
    `docker-archive:${join(directory, 'docker.tar')}:skopeo/demo:1`,
  ]);
  await using fixture = await openStore();

  const { createReadStream } = await import('node:fs');
  const loaded = await fixture.store.load(createReadStream(join(directory, 'docker.tar')));

  t.deepEqual(loaded[0]?.names, ['skopeo/demo:1']);
  t.deepEqual(
    fixture.store.resolve('skopeo/demo:1').layers.map(({ diffId }) => diffId),
    image.diffIds,
  );
});

test('a saved stream that is not read to its end lets its blobs go', async (t) => {
  await using fixture = await openStore();
  await fixture.store.load(Readable.from([layoutArchive(image, 'demo:1')]));
  const stream = fixture.store.save(['demo:1']);
  await stream[Symbol.asyncIterator]().next();
  const closed = new Promise((resolve) => stream.once('close', resolve));
  stream.destroy();
  await closed;

  await fixture.store.remove('demo:1', { isUsedBy: () => [] });

  t.true(await isEmpty(fixture));
});

async function tarWith(
  entries: readonly {
    readonly name: string;
    readonly type?: 'symlink' | 'fifo';
    readonly linkname?: string;
    readonly content?: string;
  }[],
): Promise<Buffer> {
  const archive = pack();
  for (const { content = '', ...header } of entries) archive.entry(header, content);
  archive.finalize();
  return buffer(Readable.from(archive as AsyncIterable<Buffer>));
}

const hostile: Record<string, [archive: () => Buffer | Promise<Buffer>, message: RegExp]> = {
  'a name that leaves the archive': [
    () => tarWith([{ name: '../evil', content: 'x' }]),
    /member "\.\.\/evil" leaves the archive/,
  ],
  'an absolute name': [() => tarWith([{ name: '/etc/evil', content: 'x' }]), /absolute/],
  'a link out of the archive': [
    () => tarWith([{ name: 'a', type: 'symlink', linkname: '../../etc/shadow' }]),
    /leaves the archive/,
  ],
  'links in a circle': [
    () =>
      tarWith([
        { name: 'manifest.json', type: 'symlink', linkname: 'b' },
        { name: 'b', type: 'symlink', linkname: 'manifest.json' },
      ]),
    /leads nowhere/,
  ],
  'a pipe': [() => tarWith([{ name: 'p', type: 'fifo' }]), /is a fifo, not a file/],
  'two members of one name': [
    () =>
      tarWith([
        { name: 'manifest.json', content: '[]' },
        { name: './manifest.json', content: '[ ]' },
      ]),
    /two different members named "manifest\.json"/,
  ],
  'a missing layer': [
    () =>
      dockerArchive({
        'manifest.json': JSON.stringify([
          { Config: `${hexOfDigest(plain.config.digest)}.json`, Layers: ['ccc/layer.tar', 'bbb/layer.tar'] },
        ]),
      }),
    /lacks "ccc\/layer\.tar", a layer/,
  ],
  'a configuration outside': [
    () => dockerArchive({ 'manifest.json': JSON.stringify([{ Config: '../../etc/passwd', Layers: [] }]) }),
    /leaves the archive/,
  ],
  'too few layers': [
    () =>
      dockerArchive({
        'manifest.json': JSON.stringify([
          { Config: `${hexOfDigest(plain.config.digest)}.json`, Layers: ['aaa/layer.tar'] },
        ]),
      }),
    /1 layers, but 2 diff IDs/,
  ],
  'layers in the wrong order': [
    () =>
      dockerArchive({
        'manifest.json': JSON.stringify([
          { Config: `${hexOfDigest(plain.config.digest)}.json`, Layers: ['bbb/layer.tar', 'aaa/layer.tar'] },
        ]),
      }),
    /could not be unpacked/,
  ],
  'a huge manifest.json': [
    () => dockerArchive({ 'manifest.json': Buffer.alloc(5 * 1024 * 1024, 0x20) }),
    /more than the 4194304 allowed/,
  ],
  'a manifest.json that is no JSON': [() => dockerArchive({ 'manifest.json': '{' }), /not valid JSON/],
  'an invalid name': [
    () =>
      dockerArchive({
        'manifest.json': JSON.stringify([
          {
            Config: `${hexOfDigest(plain.config.digest)}.json`,
            RepoTags: ['Bad:1'],
            Layers: ['aaa/layer.tar', 'bbb/layer.tar'],
          },
        ]),
      }),
    /must be lowercase/,
  ],
  'a blob under another digest': [
    () => {
      const forged = { ...image.config, bytes: Buffer.from('{}') };
      return layoutArchive({ ...image, blobs: [...image.layers, forged, image.manifest] });
    },
    /has other content/,
  ],
  'a cut end': [() => dockerArchive().subarray(0, 3000), /not usable/],
  'a cut gzip stream': [() => gzipSync(dockerArchive()).subarray(0, 500), /not usable/],
  'no image at all': [() => tarOf({ 'etc/passwd': 'x' }), /neither manifest\.json nor index\.json/],
  'no tar at all': [() => Buffer.alloc(4096, 0x41), /not usable/],
  'nothing at all': [() => Buffer.alloc(0), /neither manifest\.json nor index\.json/],
  'xz around it': [() => Buffer.from('fd377a585a0000', 'hex'), /compressed with xz/],
};

test('an image removed while it is being saved is saved whole, and its files go after that', async (t) => {
  await using fixture = await openStore();
  await fixture.store.load(Readable.from([layoutArchive(image, 'demo:1')]));
  const stream = fixture.store.save(['demo:1']);

  await fixture.store.remove('demo:1', { isUsedBy: () => [] });
  const during = await fixture.files('blobs/sha256');
  const archive = await buffer(stream);
  await using target = await openStore();
  const loaded = await target.store.load(Readable.from([archive]));

  t.is(during.length, 4);
  t.deepEqual(loaded, [{ id: image.config.digest, names: ['demo:1'] }]);
  t.deepEqual(await fixture.files('blobs/sha256'), []);
});

for (const [title, [archive, message]] of Object.entries(hostile)) {
  test(`an archive with ${title} is refused and leaves nothing`, async (t) => {
    await using fixture = await openStore();

    const error = await thrownBy(fixture.store.load(Readable.from([await archive()])));

    t.regex(error.message, message);
    t.true(await isEmpty(fixture));
  });
}

test('an archive whose members are more than allowed is refused', async (t) => {
  await using fixture = await openStore();
  const limits = { maxEntries: 3, maxBytes: 1024 ** 3 };

  const error = await thrownBy(fixture.store.load(Readable.from([dockerArchive()]), { limits }));

  t.regex(error.message, /more than 3 members/);
  t.true(await isEmpty(fixture));
});

test('an archive that unpacks to more than allowed is refused', async (t) => {
  await using fixture = await openStore();
  const bomb = gzipSync(tarOf({ zeros: Buffer.alloc(20_000_000) }));
  const limits = { maxEntries: 10, maxBytes: 1_000_000 };

  const error = await thrownBy(fixture.store.load(Readable.from([bomb]), { limits }));

  t.regex(error.message, /unpacks to more than 1000000 bytes/);
  t.true(await isEmpty(fixture));
});
