import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, open, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { copySparse, lockFile, readFreeSpace } from '../../../src/platform/ffi/files.ts';

async function makeDirectory(t: ExecutionContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'bulkhead-files-'));
  t.teardown(() => rm(directory, { recursive: true }));
  return directory;
}

test('a sparse file of 1 TiB is copied with its data, its holes, its size and the mode asked for', async (t) => {
  const directory = await makeDirectory(t);
  const [source, target] = [join(directory, 'source'), join(directory, 'target')] as const;
  {
    await using file = await open(source, 'w');
    await file.write(Buffer.from('begin'), 0, 5, 0);
    await file.write(Buffer.from('middle'), 0, 6, 2 ** 39);
    await file.truncate(2 ** 40);
  }

  const copied = await copySparse({ source, target, mode: 0o640 });

  t.is(copied.sizeBytes, 2 ** 40);
  t.true(copied.dataBytes <= 16384);
  const { size, blocks, mode } = await stat(target);
  t.is(size, 2 ** 40);
  t.true(blocks * 512 <= 65536, `${blocks} blocks of 512 bytes`);
  t.is(mode & 0o777, 0o640);
  await using file = await open(target, 'r');
  const { buffer } = await file.read(Buffer.alloc(6), 0, 6, 2 ** 39);
  t.is(buffer.toString(), 'middle');
});

test('a copy between file systems keeps data and holes too', async (t) => {
  const directory = await makeDirectory(t);
  const target = join('/dev/shm', `bulkhead-files-${process.pid}`);
  t.teardown(() => rm(target, { force: true }));
  const source = join(directory, 'source');
  const content = Buffer.concat([Buffer.alloc(3_000_001, 'a'), Buffer.alloc(5_000_000), Buffer.alloc(70_001, 'b')]);
  await writeFile(source, content);

  await copySparse({ source, target });

  t.true(content.equals(await readFile(target)));
});

test('a copy does not overwrite, and a failed one leaves nothing', async (t) => {
  const directory = await makeDirectory(t);
  const [source, target] = [join(directory, 'source'), join(directory, 'target')] as const;
  await writeFile(source, 'new');
  await writeFile(target, 'old');

  await t.throwsAsync(copySparse({ source, target }), { code: 'conflict', message: /target/ });
  await t.throwsAsync(copySparse({ source: join(directory, 'none'), target: join(directory, 'x') }), {
    code: 'not-found',
  });
  await t.throwsAsync(copySparse({ source: directory, target: join(directory, 'x') }), { code: 'invalid-argument' });

  t.is(await readFile(target, 'utf8'), 'old');
  await t.throwsAsync(stat(join(directory, 'x')), { code: 'ENOENT' });
});

test('free space is what df says', async (t) => {
  const space = await readFreeSpace(tmpdir());

  t.true(space.freeBytes > 0 && space.freeBytes <= space.totalBytes);
  await t.throwsAsync(readFreeSpace('/no/such/path'), { code: 'not-found' });
});

test('a lock excludes a second holder, in this process and in another, until it is released', async (t) => {
  const path = join(await makeDirectory(t), 'lock');
  const lock = lockFile(path);

  t.throws(() => lockFile(path), { code: 'conflict', message: new RegExp(`pid ${process.pid}\\b`) });
  lock[Symbol.dispose]();
  lock[Symbol.dispose]();

  t.notThrows(() => lockFile(path)[Symbol.dispose]());
});

test('a lock ends with its process, even if that is killed', async (t) => {
  const path = join(await makeDirectory(t), 'lock');
  const module = new URL('../../../src/platform/ffi/files.ts', import.meta.url).href;
  const script = `import { lockFile } from ${JSON.stringify(module)};
    globalThis.lock = lockFile(${JSON.stringify(path)}); console.log('locked'); setInterval(() => {}, 1000);`;
  const holder = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(holder.stdout, 'data');
  t.throws(() => lockFile(path), { code: 'conflict', message: new RegExp(`pid ${holder.pid}\\b`) });

  holder.kill('SIGKILL');
  await once(holder, 'exit');

  t.notThrows(() => lockFile(path)[Symbol.dispose]());
});

test('a lock is not taken through a symbolic link', (t) => {
  t.throws(() => lockFile('/proc/self/cwd'), { message: /\/proc\/self\/cwd/ });
});
