import { readdir, readFile, stat } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import { json } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import type { TestDaemon } from './daemon.ts';

/** A saved machine takes 2 to 4 s of CPU, a waiting one another; others may have the CPUs. */
const DEADLINE_MS = 90_000;

/** A machine that waits for its container: what is on disk of it, and what its shim says. */
export interface WaitingMachine {
  readonly id: string;
  readonly image?: string;
  readonly memoryBytes: number;
  readonly vcpus: number;
  readonly runtimeDir: string;
  readonly cgroupPath: string;
  readonly tapName: string;
  readonly shimPid: number;
  readonly machinePid: number;
}

export interface SavedMachine {
  readonly directory: string;
  readonly ramPath: string;
  readonly statePath: string;
  readonly manifestPath: string;
  readonly createdAtMs: number;
}

/** How a container's machine came to it. */
export interface StartFacts {
  readonly machineStart: 'booted' | 'restored' | 'pooled' | 'prepared';
  readonly phases: readonly string[];
  readonly pid: number;
}

/** Asks a program that listens on a unix socket. */
export function ask(socketPath: string, path: string): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, path, timeout: 5_000 }, (answer) => void json(answer).then(resolve, reject));
    asked.once('timeout', () => asked.destroy(new Error(`${socketPath} does not answer`)));
    asked.once('error', reject);
    asked.end();
  });
}

/** Asks again until the answer is one. */
export async function eventually<T>(what: string, answer: () => Promise<T | undefined>): Promise<T> {
  const deadline = performance.now() + DEADLINE_MS;
  for (;;) {
    const found = await answer();
    if (found !== undefined) return found;
    if (performance.now() > deadline) throw new Error(`not within ${DEADLINE_MS / 1000} s: ${what}`);
    await delay(50);
  }
}

export async function waitingMachines(daemon: TestDaemon): Promise<WaitingMachine[]> {
  const directory = join(daemon.dataRoot, 'machines');
  const all = await Promise.all(
    (await readdir(directory).catch(() => [])).map((name) => readWaiting(join(directory, name))),
  );
  return all.filter((one) => one !== undefined);
}

/** Resolves when this many machines wait of those that are meant. */
export function untilWaiting(
  daemon: TestDaemon,
  count = 1,
  isMeant: (machine: WaitingMachine) => boolean = () => true,
): Promise<[WaitingMachine, ...WaitingMachine[]]> {
  return eventually(`${count} machines wait`, async () => {
    const [first, ...others] = (await waitingMachines(daemon)).filter(isMeant);
    return first && others.length + 1 === count ? [first, ...others] : undefined;
  });
}

async function readWaiting(directory: string): Promise<WaitingMachine | undefined> {
  try {
    const record = JSON.parse(await readFile(join(directory, 'machine.json'), 'utf8')) as WaitingMachine;
    const status = (await ask(join(record.runtimeDir, 'shim.sock'), '/v1/sandbox')) as WaitingMachine & {
      state: string;
    };
    if (status.state !== 'waiting') return undefined;
    return { ...record, shimPid: status.shimPid, machinePid: status.machinePid };
  } catch {
    return undefined; // It is being made or taken away.
  }
}

export async function savedMachines(daemon: TestDaemon): Promise<SavedMachine[]> {
  const parent = join(daemon.dataRoot, 'templates');
  const names = (await readdir(parent).catch(() => [])).filter((name) => !name.endsWith('.new'));
  const all = await Promise.all(names.map((name) => readSaved(join(parent, name))));
  return all.filter((one) => one !== undefined);
}

async function readSaved(directory: string): Promise<SavedMachine | undefined> {
  const manifestPath = join(directory, 'manifest.json');
  const files = { directory, manifestPath, ramPath: join(directory, 'ram'), statePath: join(directory, 'state') };
  try {
    const { createdAtMs } = JSON.parse(await readFile(manifestPath, 'utf8')) as SavedMachine;
    return { ...files, createdAtMs };
  } catch {
    return undefined;
  }
}

/** Resolves when the default size is saved. */
export function untilSaved(daemon: TestDaemon): Promise<SavedMachine> {
  return eventually('a machine is saved', async () =>
    (await savedMachines(daemon)).find(({ directory }) => directory.endsWith('x1024')),
  );
}

/** Resolves when as much time has passed. */
export function untilAged(sinceMs: number, ageMs: number): Promise<true> {
  return eventually(`it is ${ageMs} ms old`, () => Promise.resolve(Date.now() - sinceMs >= ageMs || undefined));
}

export async function startFacts(daemon: TestDaemon, name: string): Promise<StartFacts> {
  const { Bulkhead: facts, State: state } = (await ask(daemon.socketPath, `/v1.51/containers/${name}/json`)) as {
    Bulkhead: { machineStart: StartFacts['machineStart']; phases: { name: string }[] };
    State: { Pid: number };
  };
  return { machineStart: facts.machineStart, phases: facts.phases.map(({ name: phase }) => phase), pid: state.Pid };
}

/** What is there of a waiting machine on the host. */
export async function traces(machine: WaitingMachine): Promise<string[]> {
  const cgroups = (await readdir('/sys/fs/cgroup')).map((name) => `/sys/fs/cgroup/${name}/${machine.cgroupPath}`);
  const places = [
    `/proc/${machine.shimPid}/root`,
    `/proc/${machine.machinePid}/root`,
    `/sys/class/net/${machine.tapName}`,
    `/sys/fs/cgroup/${machine.cgroupPath}`,
    machine.runtimeDir,
    ...cgroups,
  ];
  const there = await Promise.all(
    places.map((place) =>
      stat(place).then(
        () => place,
        () => undefined,
      ),
    ),
  );
  return there.filter((place) => place !== undefined);
}
