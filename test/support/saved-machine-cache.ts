import { copyFile, mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { copySparse } from '../../src/platform/ffi/files.ts';

/**
 * Saved machines of earlier test daemons: making one costs seconds of CPU, copying it some 100 ms. Nothing trusts it: a daemon looks through
 * what it finds, and takes what other programs saved for nobody's. Test processes use it at the same time: a machine appears in it by one rename.
 */
const CACHE = resolve(import.meta.dirname, '../../build/test-machines');
/** Of the default size, for the options that tests start daemons with. */
const KEPT_MAX = 3;
const isWhole = (name: string): boolean => /^[0-9a-f]{16}-\d+x1024$/.test(name);

/** Gives a daemon that is not started yet what there is. */
export async function takeSavedMachines(dataRoot: string): Promise<void> {
  const names = (await readdir(CACHE).catch(() => [])).filter(isWhole);
  for (const name of names) {
    // Another process may be removing it.
    await copyMachine(join(CACHE, name), join(dataRoot, 'templates', name)).catch(() => undefined);
  }
}

/** Keeps what a daemon that has ended has saved. */
export async function keepSavedMachines(dataRoot: string): Promise<void> {
  const known = new Set(await readdir(CACHE).catch(() => []));
  const names = (await readdir(join(dataRoot, 'templates')).catch(() => [])).filter(isWhole);
  for (const name of names.filter((one) => !known.has(one))) {
    const unfinished = join(CACHE, `${name}.${process.pid}`);
    try {
      await copyMachine(join(dataRoot, 'templates', name), unfinished);
      await rename(unfinished, join(CACHE, name));
    } catch {
      // It was not complete, or another process was quicker.
      await rm(unfinished, { recursive: true, force: true });
    }
    await removeOldest();
  }
}

async function copyMachine(source: string, target: string): Promise<void> {
  await mkdir(target, { recursive: true, mode: 0o700 });
  for (const name of ['ram', 'state'])
    await copySparse({ source: join(source, name), target: join(target, name), mode: 0o600 });
  await copyFile(join(source, 'manifest.json'), join(target, 'manifest.json'));
}

async function removeOldest(): Promise<void> {
  const names = (await readdir(CACHE)).filter(isWhole);
  const aged = await Promise.all(
    names.map(async (name) => ({ name, mtimeMs: (await stat(join(CACHE, name))).mtimeMs })),
  );
  const surplus = aged.sort((one, other) => other.mtimeMs - one.mtimeMs).slice(KEPT_MAX);
  await Promise.all(surplus.map(({ name }) => rm(join(CACHE, name), { recursive: true, force: true })));
}
