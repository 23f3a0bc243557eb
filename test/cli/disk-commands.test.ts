import test from 'ava';
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { callCli, makeDirectory } from './cli-harness.ts';

test('a disk goes through its whole life without a daemon', async (t) => {
  await using directory = await makeDirectory();
  const disk = join(directory.path, 'a.qcow2');
  const copy = join(directory.path, 'b.vmdk');
  t.deepEqual(await callCli(['disk', 'create', disk, '64M']), { exitCode: 0, stdout: `${disk}\n`, stderr: '' });
  t.is((await callCli(['disk', 'resize', disk, '+64M'])).stdout, `${disk}: 128MiB\n`);
  t.is((await callCli(['disk', 'snapshot', 'create', disk, 'clean'])).exitCode, 0);
  t.regex((await callCli(['disk', 'snapshot', 'list', disk])).stdout, /^SNAPSHOT .*\nclean .* no\n$/);
  t.regex((await callCli(['disk', 'convert', '-O', 'vmdk', disk, copy])).stderr, /^Converting: .*100%\n$/s);
  t.is((await callCli(['disk', 'info', '--format', '{{.format}} {{.virtualBytes}}', copy])).stdout, 'vmdk 134217728\n');
  t.is((await callCli(['disk', 'check', disk])).stdout, `${disk}: sound\n`);
  t.is((await callCli(['disk', 'remove', disk, copy])).exitCode, 0);
  t.deepEqual(await readdir(directory.path), []);
});

test('a chain is shown, made independent, and its base then removed', async (t) => {
  await using directory = await makeDirectory();
  const [base, top] = [join(directory.path, 'base.raw'), join(directory.path, 'top.qcow2')];
  await callCli(['disk', 'create', '-f', 'raw', base, '8M']);
  await callCli(['disk', 'create', '-b', base, top]);
  t.regex((await callCli(['disk', 'info', top])).stdout, /Base 1:\n {2}Path: .*base\.raw\n {2}Format: raw\n/);
  const refused = await callCli(['disk', 'remove', base]);
  t.is(refused.exitCode, 4);
  t.regex(refused.stderr, /top\.qcow2/);
  t.is((await callCli(['disk', 'rebase', '-b', '', top])).stdout, `${top}: on no base\n`);
  t.is((await callCli(['disk', 'rm', base])).exitCode, 0);
});

test('a hostile image is refused with a text that names what it wants', async (t) => {
  await using directory = await makeDirectory();
  const path = join(directory.path, 'evil.vmdk');
  await writeFile(path, 'version=1\nRW 1 FLAT "/etc/shadow" 0\n');
  const { exitCode, stderr, stdout } = await callCli(['disk', 'info', path]);
  t.is(exitCode, 1);
  t.is(stdout, '');
  t.regex(stderr, /evil\.vmdk is refused: its extent is "\/etc\/shadow".*--allow-path/);
});

test('sizes and formats that cannot be are usage errors', async (t) => {
  await using directory = await makeDirectory();
  const path = join(directory.path, 'a');
  for (const words of [
    ['create', path, 'big'],
    ['create', path, '+1G'],
    ['create', '-f', 'qcow7', path, '1G'],
    ['rebase', path],
    ['check', '-r', 'some', path],
  ]) {
    t.is((await callCli(['disk', ...words])).exitCode, 2, words.join(' '));
  }
  t.is((await callCli(['disk', 'info', path])).exitCode, 3);
  t.deepEqual(await readdir(directory.path), []);
});
