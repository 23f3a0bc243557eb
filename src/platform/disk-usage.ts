import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';

const BLOCK_BYTES = 512;

/** Bytes of the disk that a file or a tree takes; holes take none. What goes away meanwhile, or was never there, counts nothing. */
export async function diskUsageBytes(path: string): Promise<number> {
  const facts = await lstat(path).catch(() => undefined);
  if (!facts) return 0;
  let total = facts.blocks * BLOCK_BYTES;
  if (!facts.isDirectory()) return total;
  const names = await readdir(path).catch(() => []);
  // One after the other: a tree may have any number of files, and the daemon only so many descriptors.
  for (const name of names) total += await diskUsageBytes(join(path, name));
  return total;
}
