import { existsSync, readFileSync, statSync } from 'node:fs';
import { rename } from 'node:fs/promises';
import { run } from './bench/programs.ts';

const MAKING_MS = 600_000;

/** The host's own list of Debian mirrors, and its release. */
function debianSources(): { suite: string; file: string } {
  const suite = /^VERSION_CODENAME=(\w+)/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? 'bookworm';
  const candidates = ['/etc/apt/sources.list.d/debian.sources', '/etc/apt/sources.list'];
  const file = candidates.find((path) => existsSync(path) && statSync(path).size > 0);
  if (!file) throw new Error(`none of ${candidates.join(', ')} lists a Debian mirror`);
  return { suite, file };
}

/** A Debian userland as one tar; made by mmdebstrap, which takes half a minute. */
export async function makeUserland(path: string, packages: readonly string[] = []): Promise<void> {
  const { suite, file } = debianSources();
  const unfinished = `${path}.part`; // Without a suffix that it knows, mmdebstrap would make a directory.
  const include = packages.length > 0 ? [`--include=${packages.join(',')}`] : [];
  const options = ['--quiet', '--variant=essential', '--mode=root', '--format=tar', ...include];
  await run('mmdebstrap', [...options, suite, unfinished, file], process.env, MAKING_MS);
  await rename(unfinished, path);
}
