import test from 'ava';
import { busyboxLayer, type Entry } from '../support/archive.ts';
import { TestDaemon } from '../support/daemon.ts';

const LONG_NAME = 'n'.repeat(255);

/** What a tar can hold that simple tools lose. */
const oddEntries: Entry[] = [
  { name: 'odd', type: 'directory', mode: 0o755 },
  { name: 'odd/setuid', mode: 0o4755, content: 'x' },
  { name: 'odd/sticky', type: 'directory', mode: 0o1777 },
  { name: 'odd/owned', uid: 200_000, gid: 70_000, mode: 0o640, content: 'owned' },
  { name: 'odd/zero', type: 'character-device', devmajor: 1, devminor: 5, mode: 0o666 },
  { name: 'odd/pipe', type: 'fifo', mode: 0o600 },
  { name: `odd/${LONG_NAME}`, content: 'long' },
  { name: 'other', type: 'directory', mode: 0o755 },
  { name: 'other/link', type: 'link', linkname: 'odd/setuid' },
  { name: 'other/symlink', type: 'symlink', linkname: '../odd/owned' },
  { name: 'opaque', type: 'directory', mode: 0o755 },
  { name: 'opaque/below', content: 'below' },
  { name: 'gone', content: 'gone' },
  {
    name: 'odd/capable',
    mode: 0o755,
    content: 'x',
    pax: { 'SCHILY.xattr.user.note': 'kept' },
  },
];
const whiteouts: Entry[] = [
  { name: 'opaque', type: 'directory', mode: 0o755 },
  { name: 'opaque/.wh..wh..opq', content: '' },
  { name: 'opaque/above', content: 'above' },
  { name: '.wh.gone', content: '' },
];
const LOOK = [
  'stat -c "%a %u %g %F" /odd/setuid /odd/sticky /odd/owned /odd/pipe',
  'stat -c "%t %T" /odd/zero',
  'head -c 2 /odd/zero | wc -c',
  'test /odd/setuid -ef /other/link && echo same file',
  'readlink /other/symlink',
  `cat /odd/${LONG_NAME}; echo`,
  'ls /opaque',
  'ls -d /gone 2>&1',
].join('; ');

for (const wall of ['vm', 'os'] as const) {
  test.serial(`${wall}: what a layer's tar says is what the container sees`, async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load({ name: 'odd:latest', layers: [await busyboxLayer(), oddEntries, whiteouts] });

    const { stdout } = await daemon.docker(['run', '--rm', '--isolation', wall, 'odd', 'sh', '-c', LOOK]);

    t.deepEqual(stdout.trim().split('\n'), [
      '4755 0 0 regular file',
      '1777 0 0 directory',
      '640 200000 70000 regular file',
      '600 0 0 fifo',
      '1 5',
      '2',
      'same file',
      '../odd/owned',
      'long',
      'above',
      'ls: /gone: No such file or directory',
    ]);
  });

  test.serial(`${wall}: an image of 127 layers runs, and the highest layer wins`, async (t) => {
    await using daemon = await TestDaemon.start(t);
    const layers: Entry[][] = Array.from({ length: 126 }, (_, index) => [
      { name: `layer-${index}`, content: `${index}` },
      { name: 'last', content: `${index}` },
    ]);
    await daemon.load({ name: 'tall:latest', layers: [await busyboxLayer(), ...layers] });

    const { stdout } = await daemon.docker([
      'run',
      '--rm',
      '--isolation',
      wall,
      'tall',
      'sh',
      '-c',
      'cat /last; echo; ls -d /layer-* | wc -l',
    ]);

    t.is(stdout, '125\n126\n');
  });

  test.serial(`${wall}: what a container writes stays with it until it is removed`, async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();
    const flags = ['--isolation', wall];

    await daemon.docker([
      'run',
      ...flags,
      '--name',
      'one',
      'busybox',
      'sh',
      '-c',
      'echo one >>/etc/from-image; rm /etc/group; cat /etc/from-image',
    ]);
    await daemon.docker(['run', ...flags, '--name', 'two', 'busybox', 'cat', '/etc/from-image']);
    const again = await daemon.docker(['start', '-a', 'one']);
    const other = await daemon.docker(['logs', 'two']);
    const readOnly = await daemon.docker([
      'run',
      '--rm',
      ...flags,
      '--read-only',
      'busybox',
      'sh',
      '-c',
      'echo x >/x || echo refused',
    ]);
    await daemon.docker(['rm', 'one', 'two']);

    t.is(again.stdout, 'from the image\none\none\n');
    t.is(other.stdout, 'from the image\n');
    t.is(readOnly.stdout, 'refused\n');
  });
}
