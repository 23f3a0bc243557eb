import { execFile } from 'node:child_process';
import { mkdtemp, readdir, rmdir, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { promisify } from 'node:util';
import test from 'ava';
import { createImage, layoutArchive, noise } from './image-fixture.ts';
import { serveImage, startServer } from './hostile-registry.ts';
import { openStore, thrownBy } from './store-fixture.ts';

const run = promisify(execFile);

interface SmallDisk extends AsyncDisposable {
  readonly root: string;
}

/** A file system of its own that is full after `sizeMebibytes`. */
async function mountSmallDisk(sizeMebibytes: number): Promise<SmallDisk> {
  const root = await mkdtemp(join(tmpdir(), 'bulkhead-full-'));
  await run('mount', ['-t', 'tmpfs', '-o', `size=${sizeMebibytes}m`, 'bulkhead-test', root]);
  return {
    root,
    [Symbol.asyncDispose]: async () => {
      await run('umount', [root]);
      await rmdir(root);
    },
  };
}

async function leftovers(root: string): Promise<string[]> {
  const directories = ['blobs/sha256', 'blobs/ingest', 'layers/ingest'];
  return (await Promise.all(directories.map((name) => readdir(join(root, name))))).flat();
}

test('a pull that cannot fit is refused before its layers are downloaded', async (t) => {
  const image = createImage({ layers: [{ data: noise(30_000_000, 'large') }] });
  await using server = await startServer(serveImage(image));
  await using disk = await mountSmallDisk(40);
  await using fixture = await openStore({ root: disk.root });

  const error = await thrownBy(fixture.store.pull(`${server.host}/app`));

  t.is(error.code, 'resource-exhausted');
  t.true(error.message.startsWith(`no space left in ${disk.root} for the layers to pull: it needs 58 MiB`));
  t.false(server.requests.some(({ url }) => url.endsWith(image.layers[0]?.digest ?? '')));
  t.deepEqual(await leftovers(disk.root), []);
});

test('a disk that fills while an archive is loaded is named, and nothing is left on it', async (t) => {
  const image = createImage({ layers: [{ data: noise(30_000_000, 'large') }] });
  await using disk = await mountSmallDisk(20);
  await using fixture = await openStore({ root: disk.root });

  const error = await thrownBy(fixture.store.load(Readable.from([layoutArchive(image, 'a:1')])));

  t.is(error.code, 'resource-exhausted');
  t.true(error.message.includes(disk.root));
  t.deepEqual(await leftovers(disk.root), []);
});

test('a layer that does not fit when unpacked is named, and nothing is left', async (t) => {
  const image = createImage({ layers: [{ data: Buffer.alloc(60_000_000, 'x') }] });
  await using server = await startServer(serveImage(image));
  await using disk = await mountSmallDisk(30);
  await using fixture = await openStore({ root: disk.root });
  const before = await statfs(disk.root);

  const error = await thrownBy(fixture.store.pull(`${server.host}/app`));

  t.regex(error.message, /could not be unpacked|no space left/);
  t.deepEqual(await leftovers(disk.root), []);
  t.true((await statfs(disk.root)).bavail > before.bavail - 256);
});
