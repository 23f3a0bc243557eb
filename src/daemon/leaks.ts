import { readdir, readFile, readlink } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { EngineError } from '../core/errors.ts';
import { firewallTable } from '../network/bridge-network.ts';
import { cgroupDirectories } from '../platform/cgroups.ts';
import { runProgram } from '../platform/exec.ts';
import { findGuestLeaks, guestOfProgram } from './guest-leaks.ts';

/** A host resource of ours that belongs to nothing that lives. */
export interface Leak {
  readonly kind: 'process' | 'interface' | 'mount' | 'loop device' | 'cgroup' | 'firewall table' | 'socket' | 'file';
  readonly name: string;
  readonly why: string;
}

export interface LeakScope {
  readonly dataRoot: string;
  readonly execRoot: string;
  readonly interfacePrefix: string;
  /** Ids of the containers that the daemon knows, if one answers: for files, which outlive their sandboxes rightly. */
  readonly knownContainers: ReadonlySet<string> | undefined;
  /** The same of guests. */
  readonly knownGuests: ReadonlySet<string> | undefined;
}

/** A shim's own name in the process list; its argument is its runtime directory. */
const SHIM = 'bulkhead-shim';
/** Longer than the daemon takes to make or clear away what a container has. */
const SECOND_LOOK_MS = 1_000;
/** Programs that run only below a shim. */
const BELOW_SHIM = new Set(['qemu-system-x86_64', 'qemu-system-x86', 'runc']);

/**
 * Looks at /proc, /sys, nft and the file system, not at any record of ours: what is there without a living shim is a leak. What is just being made
 * or cleared away is none: only what is found twice counts.
 */
export async function findLeaks(scope: LeakScope): Promise<Leak[]> {
  const first = await lookForLeaks(scope);
  if (first.length === 0) return [];
  await delay(SECOND_LOOK_MS);
  const second = await lookForLeaks(scope);
  return second.filter(({ kind, name }) => first.some((one) => one.kind === kind && one.name === name));
}

async function lookForLeaks(scope: LeakScope): Promise<Leak[]> {
  const processes = await listProcesses();
  const shims = processes.filter(
    ({ args }) => basename(args[0] ?? '') === SHIM && (args[1] ?? '').startsWith(`${scope.execRoot}/s/`),
  );
  const living = new Set(shims.map(({ args }) => basename(args[1] ?? '')));
  const found = await Promise.all([
    processLeaks(processes, scope),
    interfaceLeaks(scope, living),
    mountLeaks(scope, living),
    loopLeaks(scope),
    cgroupLeaks(living, scope),
    firewallLeaks(scope),
    runtimeLeaks(scope, living),
    fileLeaks(scope, living),
    machineFileLeaks(scope, living),
    findGuestLeaks(scope, processes),
  ]);
  return found.flat();
}

interface ProcessFacts {
  readonly pid: number;
  readonly parent: number;
  readonly args: readonly string[];
  readonly uid: number;
}

async function listProcesses(): Promise<ProcessFacts[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const all = await Promise.all(pids.map(readProcess));
  return all.filter((one) => one !== undefined);
}

async function readProcess(pid: string): Promise<ProcessFacts | undefined> {
  try {
    const [status, cmdline] = await Promise.all([
      readFile(`/proc/${pid}/status`, 'utf8'),
      readFile(`/proc/${pid}/cmdline`, 'utf8'),
    ]);
    const number = (key: string): number => Number(new RegExp(`^${key}:\\s*(\\d+)`, 'm').exec(status)?.[1] ?? -1);
    // Without a command line it is a kernel thread, or a process on its way out, without memory already.
    if (cmdline === '') return undefined;
    return { pid: Number(pid), parent: number('PPid'), uid: number('Uid'), args: cmdline.split('\0').filter(Boolean) };
  } catch {
    return undefined; // It ended while we looked.
  }
}

function processLeaks(processes: readonly ProcessFacts[], scope: LeakScope): Promise<Leak[]> {
  const byPid = new Map(processes.map((one) => [one.pid, one]));
  const isShim = (one: ProcessFacts | undefined): boolean => basename(one?.args[0] ?? '') === SHIM;
  const hasShimAbove = (one: ProcessFacts): boolean => {
    for (let at: ProcessFacts | undefined = one; at; at = byPid.get(at.parent)) if (isShim(at)) return true;
    return false;
  };
  const ours = processes.filter(
    (one) =>
      BELOW_SHIM.has(basename(one.args[0] ?? '')) && one.args.some((argument) => argument.includes(scope.execRoot)),
  );
  const machineUids = processes.filter((one) => one.uid >= 1_900_000_000 && one.uid < 1_900_065_536);
  // A guest's machine has no shim; whose it is, its own check looks at.
  const orphans = [...new Set([...ours, ...machineUids])].filter(
    (one) => !hasShimAbove(one) && guestOfProgram(one.args) === undefined,
  );
  return Promise.resolve(
    orphans.map((one) => ({
      kind: 'process',
      name: `${one.pid} (${basename(one.args[0] ?? '?')})`,
      why: 'no shim above it',
    })),
  );
}

async function interfaceLeaks(scope: LeakScope, living: ReadonlySet<string>): Promise<Leak[]> {
  const pattern = new RegExp(`^${scope.interfacePrefix}[tv]([0-9a-f]+)$`);
  const names = await readdir('/sys/class/net');
  return names.flatMap((name) => {
    const id = pattern.exec(name)?.[1];
    if (id === undefined || [...living].some((one) => one.startsWith(id))) return [];
    return [{ kind: 'interface' as const, name, why: 'no shim has this sandbox' }];
  });
}

async function mountLeaks(scope: LeakScope, living: ReadonlySet<string>): Promise<Leak[]> {
  const lines = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n').filter(Boolean);
  const targets = lines
    .map((line) => line.split(' ')[4] ?? '')
    .filter((target) => target.startsWith(`${scope.execRoot}/`));
  const layers = new Set(
    (await readdir(join(scope.dataRoot, 'layers')).catch(() => [])).map((name) => name.replace(/\.erofs$/, '')),
  );
  return targets.flatMap((target) => {
    const [, room = '', owner = ''] = target.slice(scope.execRoot.length).split('/');
    const isOwned = room === 'layers' ? layers.has(owner) : room === 's' && living.has(owner);
    return isOwned ? [] : [{ kind: 'mount' as const, name: target, why: 'no image and no sandbox has it' }];
  });
}

async function loopLeaks(scope: LeakScope): Promise<Leak[]> {
  const devices = (await readdir('/sys/block')).filter((name) => name.startsWith('loop'));
  const mounts = await readFile('/proc/self/mountinfo', 'utf8');
  const leaks = await Promise.all(
    devices.map(async (device): Promise<Leak[]> => {
      const backing = (await readFile(`/sys/block/${device}/loop/backing_file`, 'utf8').catch(() => '')).trim();
      if (!backing.startsWith(`${scope.dataRoot}/`) || mounts.includes(` /dev/${device} `)) return [];
      return [{ kind: 'loop device', name: `/dev/${device}`, why: `bound to ${backing} and mounted nowhere` }];
    }),
  );
  return leaks.flat();
}

async function cgroupLeaks(living: ReadonlySet<string>, scope: LeakScope): Promise<Leak[]> {
  const parents = await cgroupDirectories('bulkhead');
  const names = await Promise.all(
    parents.map(async (parent) =>
      (await readdir(parent, { withFileTypes: true }).catch(() => []))
        .filter((entry) => entry.isDirectory())
        .map((entry) => join(parent, entry.name)),
    ),
  );
  const dead = names.flat().filter((path) => ![...living].some((id) => basename(path).startsWith(id)));
  // Another daemon's sandboxes are in the same parent: theirs live below another exec root.
  const others = await otherShims(scope);
  return dead
    .filter((path) => !others.some((id) => basename(path).startsWith(id)))
    .map((path) => ({ kind: 'cgroup', name: path, why: 'no shim has this sandbox' }));
}

async function otherShims(scope: LeakScope): Promise<string[]> {
  const processes = await listProcesses();
  return processes
    .filter(({ args }) => basename(args[0] ?? '') === SHIM && !(args[1] ?? '').startsWith(`${scope.execRoot}/s/`))
    .map(({ args }) => basename(args[1] ?? ''));
}

async function firewallLeaks(scope: LeakScope): Promise<Leak[]> {
  const table = firewallTable(scope.interfacePrefix);
  const text = await listTables();
  if (!text.split('\n').includes(`table inet ${table}`)) return [];
  const bridge = `${scope.interfacePrefix}0`;
  const exists = await readlink(`/sys/class/net/${bridge}`).then(
    () => true,
    () => false,
  );
  return exists ? [] : [{ kind: 'firewall table', name: `inet ${table}`, why: `its bridge ${bridge} does not exist` }];
}

/** Without nft on the host there can be no table of ours; any other failure must not pass for "none". */
async function listTables(): Promise<string> {
  try {
    return await runProgram('nft', ['list', 'tables'], { purpose: 'list the firewall tables' });
  } catch (error) {
    if (error instanceof EngineError && error.code === 'unavailable') return '';
    throw error;
  }
}

async function runtimeLeaks(scope: LeakScope, living: ReadonlySet<string>): Promise<Leak[]> {
  const names = await readdir(join(scope.execRoot, 's')).catch(() => []);
  return names
    .filter((name) => !living.has(name))
    .map((name) => ({ kind: 'socket', name: join(scope.execRoot, 's', name), why: 'no shim has this directory' }));
}

/** What a machine had while it waited goes when it is given away, or with it. */
async function machineFileLeaks({ dataRoot }: LeakScope, living: ReadonlySet<string>): Promise<Leak[]> {
  const waiting = await readdir(join(dataRoot, 'machines')).catch(() => []);
  return waiting
    .filter((name) => !name.startsWith('discarded-') && ![...living].some((id) => name.startsWith(id)))
    .map((name) => ({ kind: 'file', name: join(dataRoot, 'machines', name), why: 'no machine that waits has it' }));
}

async function fileLeaks(scope: LeakScope, living: ReadonlySet<string>): Promise<Leak[]> {
  const { knownContainers, dataRoot } = scope;
  if (!knownContainers) return [];
  const names = await readdir(join(dataRoot, 'containers')).catch(() => []);
  return names
    .filter((name) => !knownContainers.has(name) && ![...living].some((id) => name.startsWith(id)))
    .map((name) => ({
      kind: 'file',
      name: join(dataRoot, 'containers', name),
      why: 'the daemon knows no such container',
    }));
}
