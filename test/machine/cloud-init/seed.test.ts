import test, { type ExecutionContext } from 'ava';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildIsoImage } from '../../../src/machine/cloud-init/iso-image.ts';
import { buildSeed } from '../../../src/machine/cloud-init/seed.ts';
import { runProgram } from '../../../src/platform/exec.ts';

/* The images are read back by libarchive and by libblkid; a guest's kernel reads one in the tests that boot a machine. */

const createdAt = new Date('2026-11-25T01:02:03Z');
const run = (program: string, ...args: string[]): Promise<string> =>
  runProgram(program, args, { purpose: `run ${program} in a test` });

async function unpacked(t: ExecutionContext, image: Buffer): Promise<{ file: string; content: string }> {
  const directory = await mkdtemp(join(tmpdir(), 'bulkhead-seed-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const file = join(directory, 'seed.iso');
  const content = join(directory, 'content');
  await writeFile(file, image);
  await mkdir(content);
  await run('bsdtar', '-x', '-f', file, '-C', content);
  return { file, content };
}

test('another program reads back what the seed holds, under the names that cloud-init looks for', async (t) => {
  const userData = `#cloud-config\nwrite_files:\n${'# filler that crosses sectors\n'.repeat(500)}`;
  const network = {
    macAddress: '02:42:ac:1e:00:02',
    ipv4Address: '172.30.0.2',
    ipv4PrefixLength: 16,
    ipv4Gateway: '172.30.0.1',
    nameservers: ['9.9.9.9'],
    mtuBytes: 1500,
  };
  const seed = buildSeed({ instanceId: 'i-1', hostname: 'web', userData, network, createdAt });
  const { file, content } = await unpacked(t, seed);
  t.is(await readFile(join(content, 'user-data'), 'utf8'), userData);
  t.deepEqual(JSON.parse(await readFile(join(content, 'meta-data'), 'utf8')), {
    'instance-id': 'i-1',
    'local-hostname': 'web',
  });
  const read = JSON.parse(await readFile(join(content, 'network-config'), 'utf8')) as Record<string, unknown>;
  t.is(read['version'], 2);
  t.regex(JSON.stringify(read), /"172\.30\.0\.2\/16"/);
  t.is((await run('blkid', '-p', '-o', 'value', '-s', 'LABEL', file)).trim(), 'cidata');
});

test('files of no and of exactly one sector are whole', async (t) => {
  const files = [
    { name: 'empty', content: Buffer.alloc(0) },
    { name: 'full', content: Buffer.alloc(2048, 'f') },
    { name: 'more', content: Buffer.alloc(2049, 'm') },
  ];
  const { content: directory } = await unpacked(t, buildIsoImage({ volumeId: 'test', files, createdAt }));
  for (const { name, content } of files) t.true(content.equals(await readFile(join(directory, name))), name);
});

test('the same seed is the same image', (t) => {
  const spec = { instanceId: 'i-1', hostname: 'web', userData: undefined, network: undefined, createdAt };
  t.true(buildSeed(spec).equals(buildSeed(spec)));
});

test('user-data that cloud-init would silently ignore is refused, with the first line that it needs', (t) => {
  const spec = { instanceId: 'i-1', hostname: 'web', userData: 'packages: [vim]\n', network: undefined, createdAt };
  t.throws(() => buildSeed(spec), { code: 'invalid-argument', message: /"packages: \[vim\]".*#cloud-config/ });
});

test('names that cannot stand in the image, and too much of it, are refused', (t) => {
  const make = (name: string, bytes: number): Buffer =>
    buildIsoImage({ volumeId: 'test', files: [{ name, content: Buffer.alloc(bytes) }], createdAt });
  t.throws(() => make('a/b', 1), { code: 'invalid-argument' });
  t.throws(() => make('', 1), { code: 'invalid-argument' });
  t.throws(() => make('big', 65 * 1024 * 1024), { code: 'limit-exceeded' });
});
