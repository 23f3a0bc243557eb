import { readdir, readFile, stat } from 'node:fs/promises';
import { basename } from 'node:path';

/**
 * Who has one of these files open: machines by name, other programs by name and pid, loop devices. Read from /proc and /sys, because a lock
 * tells that there is a user, not which. A process of another user is only seen by root; QEMU's own lock then still refuses the write.
 */
export async function findImageUsers(paths: readonly string[]): Promise<string[]> {
  const files = new Set((await Promise.all(paths.map(identityOf))).filter((one) => one !== undefined));
  if (files.size === 0) return [];
  const [processes, loops] = await Promise.all([processUsers(files), loopUsers(new Set(paths))]);
  return [...new Set([...processes, ...loops])];
}

async function identityOf(path: string): Promise<string | undefined> {
  try {
    const { dev, ino } = await stat(path);
    return `${dev}:${ino}`;
  } catch {
    return undefined;
  }
}

async function processUsers(files: ReadonlySet<string>): Promise<string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid);
  const users = await Promise.all(
    pids.map(async (pid) => ((await hasOpen(pid, files)) ? await nameProcess(pid) : undefined)),
  );
  return users.filter((one) => one !== undefined);
}

async function hasOpen(pid: string, files: ReadonlySet<string>): Promise<boolean> {
  const descriptors = await readdir(`/proc/${pid}/fd`).catch(() => []);
  for (const descriptor of descriptors) {
    const identity = await identityOf(`/proc/${pid}/fd/${descriptor}`);
    if (identity !== undefined && files.has(identity)) return true;
  }
  return false;
}

/** Our machines carry their name in QEMU's `-name guest=NAME`. */
async function nameProcess(pid: string): Promise<string | undefined> {
  const args = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0');
  const program = basename(args[0] ?? '');
  if (program === '') return undefined; // It ended while we looked.
  const guest = /^guest=([^,]+)/.exec(args[args.indexOf('-name') + 1] ?? '')?.[1];
  if (program.startsWith('qemu-system') && guest !== undefined) return `the running machine ${guest}`;
  return `${program} (pid ${pid})`;
}

async function loopUsers(paths: ReadonlySet<string>): Promise<string[]> {
  const devices = (await readdir('/sys/block').catch(() => [])).filter((name) => name.startsWith('loop'));
  const backing = await Promise.all(
    devices.map(async (device) => ({
      device,
      path: (await readFile(`/sys/block/${device}/loop/backing_file`, 'utf8').catch(() => '')).trimEnd(),
    })),
  );
  return backing.filter(({ path }) => paths.has(path)).map(({ device }) => `the loop device /dev/${device}`);
}
