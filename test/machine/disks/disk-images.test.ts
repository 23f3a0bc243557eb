import test, { type ExecutionContext } from 'ava';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DiskImages } from '../../../src/machine/disks/disk-images.ts';
import { runProgram } from '../../../src/platform/exec.ts';
import type { EngineError } from '../../../src/core/errors.ts';

/* Real qemu-img throughout; images that lie are made with it, or byte by byte where it refuses to make them. */

const MIB = 1024 * 1024;

async function scratch(t: ExecutionContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'bulkhead-disks-'));
  t.teardown(() => rm(path, { recursive: true, force: true }));
  return path;
}

const disks = new DiskImages({ allowedDirectories: [] });
const qemuImg = (...args: string[]): Promise<string> => runProgram('qemu-img', args, { purpose: 'prepare a test' });

async function refusal(t: ExecutionContext, promise: Promise<unknown>, code: string): Promise<string> {
  const error = await t.throwsAsync<EngineError>(promise, { code });
  return error?.message ?? '';
}

/** A qcow2 whose backing file is whatever is written here, which qemu-img would not make. */
async function withBackingName(path: string, name: string): Promise<void> {
  await qemuImg('create', '-q', '-f', 'qcow2', path, '1M');
  const image = await readFile(path);
  image.writeBigUInt64BE(0x400n, 8);
  image.writeUInt32BE(Buffer.byteLength(name), 16);
  image.write(name, 0x400);
  await writeFile(path, image);
}

test('a created disk has the size and format that were asked for', async (t) => {
  const directory = await scratch(t);
  const report = await disks.create(join(directory, 'a.qcow2'), { format: 'qcow2', virtualBytes: 64 * MIB });
  t.is(report.virtualBytes, 64 * MIB);
  t.is(report.format, 'qcow2');
  t.true(report.actualBytes < MIB);
  t.deepEqual(await readdir(directory), ['a.qcow2']);
});

test('every format that can be created is recognised again by its own mark', async (t) => {
  const directory = await scratch(t);
  for (const format of ['qcow2', 'raw', 'vmdk', 'vdi', 'vhdx'] as const) {
    const path = join(directory, `disk.${format}`);
    await disks.create(path, { format, virtualBytes: 16 * MIB });
    t.is((await disks.info(path, { format: undefined })).format, format);
  }
});

test('a disk on a base takes its size, and shows the whole chain', async (t) => {
  const directory = await scratch(t);
  const base = join(directory, 'base.qcow2');
  await disks.create(base, { format: 'qcow2', virtualBytes: 32 * MIB });
  await disks.create(join(directory, 'middle.qcow2'), {
    format: 'qcow2',
    virtualBytes: undefined,
    base: { path: base, format: undefined },
  });
  const report = await disks.create(join(directory, 'top.qcow2'), {
    format: 'qcow2',
    virtualBytes: 48 * MIB,
    base: { path: join(directory, 'middle.qcow2'), format: undefined },
  });
  t.is(report.virtualBytes, 48 * MIB);
  t.deepEqual(
    report.backing.map(({ path, virtualBytes }) => [path, virtualBytes]),
    [
      [join(directory, 'middle.qcow2'), 32 * MIB],
      [base, 32 * MIB],
    ],
  );
});

test('a disk smaller than its base is refused, and leaves no file', async (t) => {
  const directory = await scratch(t);
  const base = join(directory, 'base.qcow2');
  await disks.create(base, { format: 'qcow2', virtualBytes: 32 * MIB });
  const spec = { format: 'qcow2', virtualBytes: MIB, base: { path: base, format: undefined } } as const;
  t.regex(await refusal(t, disks.create(join(directory, 'a.qcow2'), spec), 'invalid-argument'), /less than/);
  t.deepEqual(await readdir(directory), ['base.qcow2']);
});

test('an existing file is never overwritten by create or convert', async (t) => {
  const directory = await scratch(t);
  const path = join(directory, 'precious');
  await writeFile(path, 'precious');
  await disks.create(join(directory, 'a.raw'), { format: 'raw', virtualBytes: MIB });
  await refusal(t, disks.create(path, { format: 'qcow2', virtualBytes: MIB }), 'conflict');
  const spec = { sourceFormat: undefined, targetFormat: 'qcow2', compress: false } as const;
  await refusal(t, disks.convert(join(directory, 'a.raw'), path, spec), 'conflict');
  t.is(await readFile(path, 'utf8'), 'precious');
});

test('a conversion keeps the content, tells its progress, and leaves one file', async (t) => {
  const directory = await scratch(t);
  const source = join(directory, 'a.raw');
  const content = Buffer.alloc(8 * MIB, 'bulkhead');
  await writeFile(source, content);
  const seen: number[] = [];
  const target = join(directory, 'a.qcow2');
  const onProgress = (percent: number): void => void seen.push(percent);
  await disks.convert(source, target, { sourceFormat: 'raw', targetFormat: 'qcow2', compress: true, onProgress });
  t.is(seen.at(-1), 100);
  await disks.convert(target, join(directory, 'b.raw'), {
    sourceFormat: undefined,
    targetFormat: 'raw',
    compress: false,
  });
  t.true(content.equals(await readFile(join(directory, 'b.raw'))));
  t.deepEqual((await readdir(directory)).sort(), ['a.qcow2', 'a.raw', 'b.raw']);
});

test('a cancelled conversion leaves nothing behind', async (t) => {
  const directory = await scratch(t);
  const source = join(directory, 'a.raw');
  await writeFile(source, Buffer.alloc(64 * MIB, 'x'));
  const abort = new AbortController();
  const onProgress = (): void => abort.abort();
  const spec = { sourceFormat: 'raw', targetFormat: 'qcow2', compress: true, onProgress } as const;
  await refusal(t, disks.convert(source, join(directory, 'a.qcow2'), spec, { signal: abort.signal }), 'cancelled');
  t.deepEqual(await readdir(directory), ['a.raw']);
});

test('shrinking wants both words, and growing none', async (t) => {
  const directory = await scratch(t);
  const path = join(directory, 'a.qcow2');
  await disks.create(path, { format: 'qcow2', virtualBytes: 8 * MIB });
  const resize = (bytes: number, shrink: boolean, confirmed: boolean): ReturnType<typeof disks.resize> =>
    disks.resize(path, { format: undefined, size: { kind: 'absolute', bytes }, shrink, confirmed });
  t.is((await resize(16 * MIB, false, false)).virtualBytes, 16 * MIB);
  t.regex(await refusal(t, resize(4 * MIB, false, false), 'invalid-argument'), /--shrink --yes/);
  await refusal(t, resize(4 * MIB, true, false), 'invalid-argument');
  await refusal(t, resize(4 * MIB, false, true), 'invalid-argument');
  t.is((await disks.info(path, { format: undefined })).virtualBytes, 16 * MIB);
  t.is((await resize(4 * MIB, true, true)).virtualBytes, 4 * MIB);
});

test('a machine that runs on the disk is named by every write that it stops; looking still works', async (t) => {
  const directory = await scratch(t);
  const path = join(directory, 'a.qcow2');
  await disks.create(path, { format: 'qcow2', virtualBytes: 8 * MIB });
  const machine = spawn(
    'qemu-system-x86_64',
    [
      ...['-name', 'guest=web', '-M', 'q35', '-accel', 'tcg', '-S', '-display', 'none', '-nodefaults', '-qmp', 'stdio'],
      ...['-drive', `file=${path},format=qcow2,if=virtio`],
    ],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  );
  const ended = once(machine, 'exit');
  t.teardown(async () => {
    machine.kill('SIGKILL');
    await ended;
  });
  await once(machine.stdout, 'data'); // The monitor's greeting: the disk is open.
  const format = undefined;
  const size = { kind: 'grow', bytes: MIB } as const;
  const named = /the running machine web/;
  t.regex(await refusal(t, disks.resize(path, { format, size, shrink: false, confirmed: false }), 'conflict'), named);
  t.regex(await refusal(t, disks.snapshot(path, { format, action: 'create', name: 's' }), 'conflict'), named);
  t.regex(await refusal(t, disks.check(path, { format, repair: 'all' }), 'conflict'), named);
  t.regex(await refusal(t, disks.rebase(path, { format, base: undefined, referenceOnly: false }), 'conflict'), named);
  t.regex(await refusal(t, disks.remove(path), 'conflict'), named);
  t.deepEqual((await disks.info(path, { format })).users, ['the running machine web']);
});

test('a base with children is neither removed nor resized, and they are listed', async (t) => {
  const directory = await scratch(t);
  const base = join(directory, 'base.qcow2');
  const child = join(directory, 'child.qcow2');
  await disks.create(base, { format: 'qcow2', virtualBytes: 8 * MIB });
  await disks.create(child, { format: 'qcow2', virtualBytes: undefined, base: { path: base, format: undefined } });
  t.true((await refusal(t, disks.remove(base), 'conflict')).includes(child));
  const size = { kind: 'grow', bytes: MIB } as const;
  const spec = { format: undefined, size, shrink: false, confirmed: false };
  t.true((await refusal(t, disks.resize(base, spec), 'conflict')).includes(child));
  await disks.rebase(child, { format: undefined, base: undefined, referenceOnly: false });
  await disks.remove(base);
  t.deepEqual(await readdir(directory), ['child.qcow2']);
  t.deepEqual((await disks.info(child, { format: undefined })).backing, []);
});

test('a commit writes into the base, and is refused while another image stands on it', async (t) => {
  const directory = await scratch(t);
  const base = join(directory, 'base.qcow2');
  const [one, two] = [join(directory, 'one.qcow2'), join(directory, 'two.qcow2')];
  await disks.create(base, { format: 'qcow2', virtualBytes: 8 * MIB });
  for (const path of [one, two]) {
    await disks.create(path, { format: 'qcow2', virtualBytes: undefined, base: { path: base, format: undefined } });
  }
  await runProgram('qemu-io', ['-f', 'qcow2', '-c', 'write -P 0x42 0 1M', one], { purpose: 'write to a test disk' });
  t.true((await refusal(t, disks.commit(one, { format: undefined }), 'conflict')).includes(two));
  await disks.remove(two);
  await disks.commit(one, { format: undefined });
  const said = await runProgram('qemu-io', ['-f', 'qcow2', '-c', 'read -P 0x42 0 1M', base], { purpose: 'read it' });
  t.notRegex(said, /verification failed/);
});

test('snapshots are made, listed, set back and deleted; unknown and taken names are refused', async (t) => {
  const directory = await scratch(t);
  const path = join(directory, 'a.qcow2');
  await disks.create(path, { format: 'qcow2', virtualBytes: 8 * MIB });
  const format = undefined;
  const made = await disks.snapshot(path, { format, action: 'create', name: 'before' });
  t.deepEqual(
    made.snapshots.map(({ name, vmStateBytes }) => [name, vmStateBytes]),
    [['before', 0]],
  );
  await refusal(t, disks.snapshot(path, { format, action: 'create', name: 'before' }), 'conflict');
  t.regex(await refusal(t, disks.snapshot(path, { format, action: 'restore', name: 'x' }), 'not-found'), /before/);
  await disks.snapshot(path, { format, action: 'restore', name: 'before' });
  t.deepEqual((await disks.snapshot(path, { format, action: 'delete', name: 'before' })).snapshots, []);
});

test('a check reports a leak and repairs it', async (t) => {
  const directory = await scratch(t);
  const path = join(directory, 'a.qcow2');
  await disks.create(path, { format: 'qcow2', virtualBytes: 8 * MIB });
  // One more cluster counted as used than there are references: the refcount table's only block is the third cluster.
  const image = await readFile(path);
  const block = Number(image.readBigUInt64BE(Number(image.readBigUInt64BE(48))));
  image.writeUInt16BE(1, block + 2 * 10);
  await writeFile(path, Buffer.concat([image, Buffer.alloc(11 * 64 * 1024 - image.length)]));
  const before = await disks.check(path, { format: undefined, repair: 'none' });
  t.is(before.leaks, 1);
  t.is((await disks.check(path, { format: undefined, repair: 'leaks' })).leaksFixed, 1);
  t.is((await disks.check(path, { format: undefined, repair: 'none' })).leaks, 0);
});

test('a qcow2 whose backing file is /etc/shadow is refused by every operation, before any effect', async (t) => {
  const directory = await scratch(t);
  const path = join(directory, 'evil.qcow2');
  await withBackingName(path, '/etc/shadow');
  const before = await stat(path);
  const format = undefined;
  const size = { kind: 'grow', bytes: MIB } as const;
  const target = join(directory, 'copy.raw');
  const attempts = [
    disks.info(path, { format }),
    disks.convert(path, target, { sourceFormat: 'qcow2', targetFormat: 'raw', compress: false }),
    disks.resize(path, { format, size, shrink: false, confirmed: false }),
    disks.check(path, { format, repair: 'all' }),
    disks.commit(path, { format }),
    disks.rebase(path, { format, base: undefined, referenceOnly: false }),
    disks.snapshot(path, { format, action: 'create', name: 's' }),
    disks.create(target, { format: 'qcow2', virtualBytes: undefined, base: { path, format } }),
    disks.remove(path),
  ];
  for (const attempt of attempts) t.regex(await refusal(t, attempt, 'forbidden'), /backing file is "\/etc\/shadow"/);
  t.is((await stat(path)).mtimeMs, before.mtimeMs);
  t.deepEqual(await readdir(directory), ['evil.qcow2']);
});

test('names with a protocol, and symbolic links that lead outside, are refused', async (t) => {
  const directory = await scratch(t);
  for (const [index, name] of ['nbd:127.0.0.1:9', 'json:{"driver":"null-co"}', 'file:/etc/shadow'].entries()) {
    const path = join(directory, `${index}.qcow2`);
    await withBackingName(path, name);
    t.regex(await refusal(t, disks.info(path, { format: undefined }), 'forbidden'), /not a plain file name/);
  }
  await symlink('/etc/passwd', join(directory, 'link'));
  const path = join(directory, 'linked.qcow2');
  await withBackingName(path, 'link');
  t.regex(await refusal(t, disks.info(path, { format: undefined }), 'forbidden'), /outside/);
});

test('a qcow2 with a data file outside is refused without that file being opened', async (t) => {
  const directory = await scratch(t);
  await mkdir(join(directory, 'in'));
  const fifo = join(directory, 'victim'); // Whoever opened it would hang.
  await runProgram('mkfifo', [fifo], { purpose: 'make a fifo' });
  const path = join(directory, 'in', 'evil.qcow2');
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', `data_file=${join(directory, 'in', 'data.raw')}`, path, '1M');
  const image = await readFile(path);
  const name = image.indexOf(join(directory, 'in', 'data.raw'));
  image.fill(0, name, name + join(directory, 'in', 'data.raw').length);
  image.write(fifo, name);
  image.writeUInt32BE(fifo.length, name - 4);
  await writeFile(path, image);
  t.regex(await refusal(t, disks.info(path, { format: undefined }), 'forbidden'), /data file is ".*victim"/);
});

test('a data file beside its image is taken, and shown', async (t) => {
  const directory = await scratch(t);
  const path = join(directory, 'a.qcow2');
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', `data_file=${join(directory, 'a.raw')}`, path, '1M');
  t.deepEqual((await disks.info(path, { format: undefined })).dataPaths, [join(directory, 'a.raw')]);
  t.true((await refusal(t, disks.remove(join(directory, 'a.raw')), 'conflict')).includes(path));
});

for (const [what, line] of [
  ['flat', 'RW 2048 FLAT "/etc/shadow" 0'],
  ['sparse', 'RW 2048 SPARSE "/etc/shadow"'],
  ['unfinished', 'RW 2048 SPARSE "/etc/shadow'],
  ['oddly spaced', 'RW 2048FLAT "../../../../../../etc/shadow" 0'],
] as const) {
  test(`a VMDK with a ${what} extent outside is refused`, async (t) => {
    const directory = await scratch(t);
    const path = join(directory, 'evil.vmdk');
    const head = '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\n';
    await writeFile(path, `${head}${line}\n`);
    t.regex(await refusal(t, disks.info(path, { format: undefined }), 'forbidden'), /extent is ".*etc\/shadow"/);
    const spec = { sourceFormat: 'vmdk', targetFormat: 'raw', compress: false } as const;
    await refusal(t, disks.convert(path, join(directory, 'out'), spec), 'forbidden');
    t.deepEqual(await readdir(directory), ['evil.vmdk']);
  });
}

test('a sparse VMDK that is a descriptor in disguise, or that names a parent, is refused', async (t) => {
  const directory = await scratch(t);
  const path = join(directory, 'a.vmdk');
  await qemuImg('create', '-q', '-f', 'vmdk', path, '1M');
  const plain = await readFile(path);
  const disguised = Buffer.from(plain);
  disguised.writeBigUInt64LE(0n, 12);
  disguised.fill(0, 512, 512 + 1024);
  disguised.write('# Disk DescriptorFile\nversion=1\nRW 1 FLAT "/etc/shadow" 0\n', 512);
  await writeFile(join(directory, 'disguised.vmdk'), disguised);
  const named = Buffer.from(plain);
  named.write('\nparentFileNameHint="/etc/shadow"\n', 512 + 600);
  await writeFile(join(directory, 'named.vmdk'), named);
  const format = undefined;
  t.regex(await refusal(t, disks.info(join(directory, 'disguised.vmdk'), { format }), 'forbidden'), /extent/);
  t.regex(await refusal(t, disks.info(join(directory, 'named.vmdk'), { format }), 'forbidden'), /backing file/);
  t.is((await disks.info(path, { format })).format, 'vmdk');
});

test('a raw disk whose guest wrote a qcow2 header to it is not opened as that', async (t) => {
  const directory = await scratch(t);
  const header = join(directory, 'evil.qcow2');
  await withBackingName(header, '/etc/shadow');
  const disk = join(directory, 'disk.raw');
  await writeFile(disk, await readFile(header));
  await refusal(t, disks.info(disk, { format: undefined }), 'forbidden');
  t.is((await disks.info(disk, { format: 'raw' })).backing.length, 0);
});

test('devices, fifos and directories are no images', async (t) => {
  const directory = await scratch(t);
  await runProgram('mkfifo', [join(directory, 'fifo')], { purpose: 'make a fifo' });
  for (const path of [join(directory, 'fifo'), directory, '/dev/zero']) {
    await refusal(t, disks.info(path, { format: undefined }), 'forbidden');
  }
  await refusal(t, disks.info(join(directory, 'missing'), { format: undefined }), 'not-found');
});
