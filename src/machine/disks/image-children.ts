import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { inspectImage } from './inspect-image.ts';

/** A directory with more entries is not one of disk images. */
const MAXIMUM_ENTRIES = 20_000;

/**
 * Images in these directories that stand directly on one of `paths`, or hold their data in it. What cannot be inspected (another format, a
 * broken file, a reference to elsewhere) is no child that could be lost.
 */
export async function findChildren(paths: readonly string[], directories: readonly string[]): Promise<string[]> {
  const wanted = new Set(paths);
  const children = new Set<string>();
  for (const directory of new Set(directories)) {
    const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
    for (const entry of entries.slice(0, MAXIMUM_ENTRIES)) {
      const path = join(directory, entry.name);
      if (!entry.isFile() || wanted.has(path)) continue;
      const image = await inspectImage(path, { allowedDirectories: directories }).catch(() => undefined);
      if (!image) continue;
      const parents = [...image.dataPaths, ...(image.backing ? [image.backing.path] : [])];
      if (parents.some((parent) => wanted.has(parent))) children.add(path);
    }
  }
  return [...children].sort();
}
