import { execFileSync, spawnSync } from 'node:child_process';
import { accessSync, constants, copyFileSync, readFileSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { listMounts, listMountsBelow, mountErofs, unmount } from '../../../src/platform/ffi/mounts.ts';

interface Scratch {
  readonly directory: string;
  readonly image: string;
  readonly target: string;
}

/** A directory with an EROFS image of: a file, a setuid-root copy of id, a null device. Everything below it is unmounted in the end. */
async function makeScratch(t: ExecutionContext): Promise<Scratch> {
  const directory = await mkdtemp(join(tmpdir(), 'bulkhead mounts-'));
  t.teardown(async () => {
    for (const target of (await listMountsBelow(directory)).toReversed()) await unmount(target, { detach: true });
    await rm(directory, { recursive: true });
  });
  const content = join(directory, 'content');
  const target = join(directory, 'target');
  await mkdir(content);
  await mkdir(target);
  await chmod(directory, 0o755);
  await writeFile(join(content, 'greeting'), 'hello\n');
  copyFileSync('/usr/bin/id', join(content, 'id'));
  await chmod(join(content, 'id'), 0o4755);
  execFileSync('mknod', ['-m', '666', join(content, 'null'), 'c', '1', '3']);
  const image = join(directory, 'layer.erofs');
  execFileSync('mkfs.erofs', ['--quiet', image, content], { stdio: 'ignore' });
  return { directory, image, target };
}

const effectiveUserOf = (program: string): string =>
  spawnSync(program, ['-u'], { uid: 65534, gid: 65534, encoding: 'utf8' }).stdout.trim();

for (const forceLoop of [false, true]) {
  const way = forceLoop ? 'through a loop device' : 'as the kernel prefers';

  test(`an EROFS image is mounted ${way}, listed, and unmounted once`, async (t) => {
    const { directory, image, target } = await makeScratch(t);

    const mounted = await mountErofs(image, target, { forceLoop });

    t.is(readFileSync(join(target, 'greeting'), 'utf8'), 'hello\n');
    const [mount] = await listMounts(directory);
    t.like(mount, { target, fileSystem: 'erofs' });
    t.regex(mount?.options ?? '', /ro,nosuid,nodev,noatime/);
    t.is(mounted.method === 'loop' || !forceLoop, true);
    t.true(await unmount(target));
    t.false(await unmount(target));
    t.deepEqual(await listMountsBelow(directory), []);
  });

  test(`setuid files and device nodes work through an overlay on a layer mounted ${way}, and not on the layer itself`, async (t) => {
    const { directory, image, target } = await makeScratch(t);
    await mountErofs(image, target, { forceLoop });
    const [upper, work, merged] = ['upper', 'work', 'merged'].map((name) => join(directory, name)) as [
      string,
      string,
      string,
    ];
    execFileSync('mkdir', [upper, work, merged]);
    execFileSync('mount', [
      ...['-t', 'overlay', 'overlay', '-o'],
      ...[`lowerdir=${target},upperdir=${upper},workdir=${work}`, merged],
    ]);

    t.is(effectiveUserOf(join(merged, 'id')), '0');
    t.is(effectiveUserOf(join(target, 'id')), '65534');
    await writeFile(join(merged, 'null'), 'x');
    await t.throwsAsync(open(join(target, 'null'), 'r'), { code: 'EACCES' });
  });
}

test('a loop device goes with its mount', async (t) => {
  const { image, target } = await makeScratch(t);
  const mounted = await mountErofs(image, target, { forceLoop: true });
  const device = mounted.method === 'loop' ? mounted.loopDevice : '';
  const backing = `/sys/block/${device.replace('/dev/', '')}/loop/backing_file`;
  t.is(readFileSync(backing, 'utf8').trim(), image);

  await unmount(target);

  // The kernel lets go of the device after the last close, which can come a moment later.
  await t.notThrowsAsync(waitUntilGone(backing, image));
});

async function waitUntilGone(backing: string, image: string): Promise<void> {
  const deadline = performance.now() + 5000;
  while (readBacking(backing) === image) {
    if (performance.now() > deadline) throw new Error(`${backing} is still ${image}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

function readBacking(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return '';
  }
}

test('a busy mount is unmounted only with detach', async (t) => {
  const { image, target } = await makeScratch(t);
  await mountErofs(image, target);
  await using file = await open(join(target, 'greeting'), 'r');

  await t.throwsAsync(unmount(target), { code: 'conflict' });
  t.true(await unmount(target, { detach: true }));

  t.is((await file.readFile('utf8')).trim(), 'hello', 'who has it open keeps it');
  t.throws(() => accessSync(join(target, 'greeting'), constants.F_OK));
});

test('what is no EROFS image, does not exist or has no directory is refused', async (t) => {
  const { directory, image, target } = await makeScratch(t);
  const garbage = join(directory, 'garbage');
  await writeFile(garbage, Buffer.alloc(65536, 7));

  for (const forceLoop of [false, true]) {
    await t.throwsAsync(mountErofs(garbage, target, { forceLoop }), { code: 'invalid-argument', message: /garbage/ });
    await t.throwsAsync(mountErofs(join(directory, 'none'), target, { forceLoop }), {
      code: 'not-found',
      message: /none/,
    });
    await t.throwsAsync(mountErofs(image, join(directory, 'none'), { forceLoop }), { code: 'not-found' });
  }
  t.deepEqual(await listMountsBelow(directory), []);
});
