import test from 'ava';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { TestDaemon } from '../support/daemon.ts';

const layerFiles = async (daemon: TestDaemon): Promise<number> =>
  (await readdir(join(daemon.dataRoot, 'layers'))).filter((name) => name.endsWith('.erofs')).length;
const layerMounts = async (daemon: TestDaemon): Promise<number> =>
  (await readFile('/proc/self/mounts', 'utf8'))
    .split('\n')
    .filter((line) => line.includes(join(daemon.execRoot, 'layers'))).length;

test('an image that is removed by force serves its container until that goes, then nothing of it is left', async (t) => {
  await using daemon = await TestDaemon.start(t);
  await daemon.load();
  const { stdout: name } = await daemon.docker(['images', '--format', '{{.Repository}}:{{.Tag}}']);
  const run = await daemon.docker(['run', '--isolation', 'os', '--name', 'kept', name.trim(), 'echo', 'one']);
  t.is(run.stdout, 'one\n', run.stderr);
  t.true((await layerMounts(daemon)) > 0);

  t.regex((await daemon.docker(['rmi', name.trim()])).stderr, /container [0-9a-f]{12} is using its referenced image/);
  t.is((await daemon.docker(['rmi', '-f', name.trim()])).code, 0);
  t.is((await daemon.docker(['images', '-q'])).stdout, '');
  t.is((await daemon.docker(['start', '-a', 'kept'])).stdout, 'one\n');

  t.is((await daemon.docker(['rm', 'kept'])).code, 0);
  t.is(await layerMounts(daemon), 0);
  t.is(await layerFiles(daemon), 0);
});
