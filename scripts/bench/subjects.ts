import { existsSync } from 'node:fs';
import { mkdir, readdir, rmdir, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from '../../src/client/index.ts';
import { killProcessesNaming, run, Service, type Finished } from './programs.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const BULKHEAD = join(ROOT, 'bin', 'bulkhead');
const PROGRAMS = join(ROOT, 'build', 'programs');
/** What a refill and, the first time, a saved machine may take. */
const REFILL_MS = 60_000;
const REFILL_POLL_MS = 50;

/** How a machine comes to its container, as `inspect` tells it, and what makes a daemon of ours do it that way. */
export const MACHINE_STARTS = {
  booted: ['--no-saved-machines'],
  restored: ['--pool', '0'],
  pooled: ['--pool', '1', '--no-pool-images'],
  prepared: ['--pool', '1'],
} as const;
export type MachineStart = keyof typeof MACHINE_STARTS;

/** A way to run containers, as the docker client sees it. */
export interface Subject {
  readonly name: MachineStart | 'os' | 'dockerd';
  readonly engine: Engine;
  /** What this way needs on the command line of `run` and `create`. */
  readonly flags: readonly string[];
}

/** A daemon of this run's own, and the docker client in front of it. */
export interface Engine {
  docker(...args: string[]): Promise<Finished>;
  /** Resolves when the daemon has made ready what it makes ready in advance. */
  settle(): Promise<void>;
  /** Process id of the daemon. */
  readonly pid: number;
  readonly root: string;
}

/** Whichever docker client the machine has: the same one in front of every engine, and with nobody's settings. */
function dockerClient(root: string, socketPath: string): (...args: string[]) => Promise<Finished> {
  const unpacked = join(PROGRAMS, 'docker.io', 'usr', 'bin', 'docker');
  const path = process.env['PATH'] ?? '';
  const isInstalled = path.split(':').some((directory) => existsSync(join(directory, 'docker')));
  const env = { PATH: path, HOME: root, DOCKER_CONFIG: join(root, 'client') };
  return (...args) => run(isInstalled ? 'docker' : unpacked, ['-H', `unix://${socketPath}`, ...args], env);
}

export async function startBulkhead(
  root: string,
  { bridgePrefix, options }: { bridgePrefix: string; options: readonly string[] },
  stack: AsyncDisposableStack,
): Promise<Engine> {
  await mkdir(root);
  const host = join(root, 'd.sock');
  const place = ['--host', `unix://${host}`, '--data-root', join(root, 'data'), '--exec-root', join(root, 'run')];
  const own = [...place, '--bridge-prefix', bridgePrefix];
  stack.defer(async () => {
    await killProcessesNaming(root);
    const { stdout } = await run(BULKHEAD, ['doctor', '--leaks', ...own]);
    if (stdout.trim() !== '0 leaks') process.stderr.write(`bench: left on the host by our daemon:\n${stdout}`);
  });
  const service = stack.use(
    Service.start(
      'our daemon',
      BULKHEAD,
      ['daemon', ...own, ...options, '--shutdown-containers'],
      join(root, 'daemon.log'),
    ),
  );
  const docker = dockerClient(root, host);
  await service.ready(() => docker('version'));
  return { docker, settle: () => untilPoolIsFull(host), pid: service.pid, root };
}

/** Asked through our own client: docker's drops the fields of an answer that it does not know. */
async function untilPoolIsFull(socketPath: string): Promise<void> {
  using client = connect({ host: `unix://${socketPath}` });
  const deadline = performance.now() + REFILL_MS;
  for (;;) {
    const pool = (await client.system.info()).Bulkhead?.machinePool;
    if (!pool || pool.waiting >= pool.size) return;
    if (performance.now() > deadline) throw new Error(`no machine waits after ${REFILL_MS} ms`);
    await sleep(REFILL_POLL_MS);
  }
}

/**
 * Debian's dockerd in network and mount namespaces of its own, so that its firewall rules, its bridge and its mounts end with it, and
 * with a /run of its own, where its containerd keeps the sockets of its shims.
 */
export async function startDockerd(root: string, stack: AsyncDisposableStack): Promise<Engine> {
  await mkdir(root);
  const socket = join(root, 'd.sock');
  const cgroup = `bulkhead-bench-${process.pid}`;
  const settings = join(root, 'daemon.json');
  await writeFile(settings, '{}');
  const surroundings = [
    'ip link set lo up',
    'ip link add bhbnd0 type bridge',
    'ip address add 172.31.99.1/24 dev bhbnd0',
    'mount -t tmpfs -o mode=755 tmpfs /run',
    'exec "$@"',
  ].join(' && ');
  const dockerd = [
    'dockerd',
    ...['--host', `unix://${socket}`, '--data-root', join(root, 'data'), '--exec-root', join(root, 'run')],
    ...['--pidfile', join(root, 'dockerd.pid'), '--config-file', settings],
    ...['--bridge', 'bhbnd0', '--cgroup-parent', `/${cgroup}`, '--userland-proxy=false'],
  ];
  const path = [
    join(PROGRAMS, 'docker.io', 'usr', 'sbin'),
    join(PROGRAMS, 'containerd', 'usr', 'bin'),
    process.env['PATH'] ?? '',
  ];
  stack.defer(async () => {
    await killProcessesNaming(root);
    await removeControlGroups(cgroup);
  });
  const service = stack.use(
    Service.start(
      'dockerd',
      'unshare',
      ['--net', '--mount', '--propagation', 'private', 'sh', '-c', surroundings, 'sh', ...dockerd],
      join(root, 'daemon.log'),
      { env: { ...process.env, PATH: path.join(':') } },
    ),
  );
  const docker = dockerClient(root, socket);
  await service.ready(() => docker('version'));
  return { docker, settle: () => Promise.resolve(), pid: service.pid, root };
}

/** The parent of the containers' groups, which dockerd leaves in every hierarchy. */
async function removeControlGroups(name: string): Promise<void> {
  const top = '/sys/fs/cgroup';
  const hierarchies = await readdir(top, { withFileTypes: true });
  const parents = [top, ...hierarchies.filter((entry) => entry.isDirectory()).map((entry) => join(top, entry.name))];
  for (const parent of parents) {
    const group = join(parent, name);
    if (existsSync(group)) await rmdir(group);
  }
}
