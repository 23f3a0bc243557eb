import { readdir, readFile, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { systemErrorCode } from '../core/errors.ts';

const ROOT = '/sys/fs/cgroup';
/** A killed process leaves its cgroup within moments; the kernel offers no event for it on version 1. */
const REMOVAL_ATTEMPTS = 50;
const REMOVAL_DELAY_MS = 10;

/** 2 where the unified hierarchy is mounted at the root, else 1 (also in hybrid set-ups, where the controllers are version 1's). */
export async function cgroupVersion(): Promise<1 | 2> {
  try {
    await readFile(join(ROOT, 'cgroup.controllers'));
    return 2;
  } catch {
    return 1;
  }
}

/** The directories that a cgroup path has: one on version 2, one per mounted hierarchy on version 1. */
export async function cgroupDirectories(path: string): Promise<string[]> {
  if ((await cgroupVersion()) === 2) return [join(ROOT, path)];
  const hierarchies = await readdir(ROOT);
  return hierarchies.map((hierarchy) => join(ROOT, hierarchy, path));
}

/** Kills every process in the cgroup and removes it. A cgroup that does not exist is a success. */
export async function killAndRemoveCgroup(path: string): Promise<void> {
  for (const directory of await cgroupDirectories(path)) await removeDirectory(directory);
}

async function removeDirectory(directory: string): Promise<void> {
  for (let attempt = 0; attempt < REMOVAL_ATTEMPTS; attempt++) {
    try {
      await rmdir(directory);
      return;
    } catch (error) {
      const code = systemErrorCode(error);
      if (code === 'ENOENT' || code === 'ENOTDIR') return;
      if (code !== 'EBUSY' && code !== 'ENOTEMPTY') throw error;
    }
    const children = await readdir(directory, { withFileTypes: true }).catch(() => []);
    for (const child of children) if (child.isDirectory()) await removeDirectory(join(directory, child.name));
    await killMembers(directory);
    await delay(REMOVAL_DELAY_MS);
  }
}

async function killMembers(directory: string): Promise<void> {
  const text = await readFile(join(directory, 'cgroup.procs'), 'utf8').catch(() => '');
  for (const pid of text.split('\n').filter(Boolean).map(Number)) {
    try {
      if (pid > 1) process.kill(pid, 'SIGKILL');
    } catch (error) {
      if (systemErrorCode(error) !== 'ESRCH') throw error;
    }
  }
}
