/**
 * `make soak`: many starts in a row in waiting machines, and many machines at once. What must not grow is looked at on the way: the daemon's
 * memory, descriptors and threads, processes, files, and the time of a start. `make soak STARTS=1000 MACHINES=50`. Results are in build/bench/.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { freemem, loadavg, tmpdir } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { busyboxImage, packImages } from '../test/support/archive.ts';
import { plotSvg } from './bench/plot.ts';
import { median } from './bench/statistics.ts';
import { MACHINE_STARTS, startBulkhead, type Engine } from './bench/subjects.ts';

const RESULTS = join(resolve(import.meta.dirname, '..'), 'build', 'bench');
const IMAGE = 'soak/busybox:latest';
const STARTS = Number(process.env['STARTS'] || 200);
const MACHINES = Number(process.env['MACHINES'] || 50);
const SAMPLE_EVERY = 20;
const MIB = 1024 * 1024;

const say = (text: string): void => void process.stdout.write(`${text}\n`);

interface Sample {
  readonly starts: number;
  readonly daemonMib: number;
  readonly descriptors: number;
  readonly files: number;
  readonly processes: number;
}

async function countFiles(directory: string): Promise<number> {
  const entries = await readdir(directory, { withFileTypes: true, recursive: true }).catch(() => []);
  return entries.length;
}

/** Of this daemon's: whoever names its directory on the command line. */
async function countProcesses(root: string): Promise<number> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const lines = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')));
  return lines.filter((line) => line.includes(root)).length;
}

async function sample({ pid, root }: Engine, starts: number): Promise<Sample> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return {
    starts,
    daemonMib: Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0) / 1024,
    descriptors: (await readdir(`/proc/${pid}/fd`)).length,
    files: await countFiles(root),
    processes: await countProcesses(root),
  };
}

async function digestOfTemplates(root: string): Promise<string> {
  const hash = createHash('sha256');
  const directory = join(root, 'data', 'templates');
  for (const name of (await readdir(directory)).toSorted()) {
    for (const file of ['ram', 'state']) {
      for await (const chunk of createReadStream(join(directory, name, file))) hash.update(chunk as Buffer);
    }
  }
  return hash.digest('hex');
}

async function startMany(engine: Engine): Promise<{ timesMs: number[]; samples: Sample[] }> {
  const timesMs: number[] = [];
  const samples: Sample[] = [];
  for (let count = 0; count < STARTS; count += 1) {
    interruption.signal.throwIfAborted();
    await engine.settle();
    if (count % SAMPLE_EVERY === 0) samples.push(await sample(engine, count));
    const { startedNs, endedNs } = await engine.docker('run', '--rm', '--isolation', 'vm', IMAGE, 'true');
    timesMs.push((endedNs - startedNs) / 1e6);
    if ((count + 1) % 100 === 0)
      say(`  ${count + 1} starts, the last hundred in ${median(timesMs.slice(-100)).toFixed(0)} ms each`);
  }
  await engine.settle();
  samples.push(await sample(engine, STARTS));
  return { timesMs, samples };
}

/** Sum of what the processes of machines hold, each shared page counted in parts. */
async function machineMemoryMib(root: string): Promise<{ count: number; pssMib: number }> {
  const directory = join(root, 'run', 's');
  const shims = new Set((await readdir(directory)).map((name) => join(directory, name)));
  let [count, pssKib] = [0, 0];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const [line, status] = await Promise.all([
      readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => ''),
      readFile(`/proc/${pid}/status`, 'utf8').catch(() => ''),
    ]);
    if (!line.includes('qemu-system')) continue;
    const parent = /^PPid:\s+(\d+)/m.exec(status)?.[1] ?? '';
    const shim = (await readFile(`/proc/${parent}/cmdline`, 'utf8').catch(() => '')).split('\0')[1] ?? '';
    if (!shims.has(shim)) continue;
    const rollup = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8').catch(() => '');
    count += 1;
    pssKib += Number(/^Pss:\s+(\d+)/m.exec(rollup)?.[1] ?? 0);
  }
  return { count, pssMib: pssKib / 1024 };
}

async function machinesAtOnce(engine: Engine): Promise<{ timesMs: number[]; pssMib: number; freeMib: number }> {
  const names = Array.from({ length: MACHINES }, (_, index) => `soak-${index}`);
  const timesMs: number[] = [];
  try {
    for (const name of names) {
      interruption.signal.throwIfAborted();
      const args = ['run', '-d', '--name', name, '--isolation', 'vm', IMAGE, 'sleep', '10000'];
      const { startedNs, endedNs } = await engine.docker(...args);
      timesMs.push((endedNs - startedNs) / 1e6);
    }
    const { pssMib, count } = await machineMemoryMib(engine.root);
    if (count < MACHINES) throw new Error(`only ${count} machine processes for ${MACHINES} containers`);
    return { timesMs, pssMib: pssMib / count, freeMib: freemem() / MIB };
  } finally {
    await engine.docker('rm', '-f', ...names);
  }
}

async function soak(): Promise<boolean> {
  const startedAt = new Date().toISOString();
  const root = await mkdtemp(join(tmpdir(), 'bh-soak-'));
  await using stack = new AsyncDisposableStack();
  stack.defer(() => rm(root, { recursive: true, force: true }));
  const archive = join(root, 'image.tar');
  await writeFile(archive, await packImages([await busyboxImage(IMAGE)]));
  const pooled = await startBulkhead(
    join(root, 'p'),
    { bridgePrefix: 'bhs0', options: MACHINE_STARTS.prepared },
    stack,
  );
  await pooled.docker('load', '-i', archive);
  await pooled.settle();
  const waiting = await machineMemoryMib(pooled.root);
  say(`a waiting machine holds ${waiting.pssMib.toFixed(0)} MiB (PSS)`);

  say(`* ${STARTS} starts in a row`);
  const before = await digestOfTemplates(pooled.root);
  const { timesMs, samples } = await startMany(pooled);
  const after = await digestOfTemplates(pooled.root);
  const tenth = Math.max(1, Math.floor(STARTS / 10));
  const [first, last] = [median(timesMs.slice(0, tenth)), median(timesMs.slice(-tenth))];
  say(`  first tenth ${first.toFixed(0)} ms, last tenth ${last.toFixed(0)} ms (${(last / first).toFixed(2)} ×)`);
  say(`  saved machines ${before === after ? 'unchanged' : 'CHANGED'}`);
  for (const one of samples.filter((_, index) => index % Math.ceil(samples.length / 10) === 0)) {
    const { starts, daemonMib, descriptors, files, processes } = one;
    say(
      `  after ${starts}: ${daemonMib.toFixed(0)} MiB, ${descriptors} descriptors, ${files} files, ${processes} processes`,
    );
  }

  say(`* ${MACHINES} machines at once`);
  const restored = await startBulkhead(
    join(root, 'r'),
    { bridgePrefix: 'bhs1', options: MACHINE_STARTS.restored },
    stack,
  );
  await restored.docker('load', '-i', archive);
  await restored.docker('run', '--rm', '--isolation', 'vm', IMAGE, 'true');
  const crowd = await machinesAtOnce(restored);
  const fifth = Math.max(1, Math.floor(MACHINES / 5));
  const [early, late] = [median(crowd.timesMs.slice(0, fifth)), median(crowd.timesMs.slice(-fifth))];
  say(`  first fifth ${early.toFixed(0)} ms, last fifth ${late.toFixed(0)} ms (${(late / early).toFixed(2)} ×)`);
  say(`  ${crowd.pssMib.toFixed(0)} MiB (PSS) a machine, ${crowd.freeMib.toFixed(0)} MiB of the host free`);

  await mkdir(RESULTS, { recursive: true });
  const name = `soak-${startedAt.replaceAll(/[:.]/g, '-')}`;
  const result = { startedAt, load: loadavg(), waitingPssMib: waiting.pssMib, timesMs, samples, crowd };
  await writeFile(join(RESULTS, `${name}.json`), `${JSON.stringify(result, undefined, 1)}\n`);
  await writeFile(
    join(RESULTS, `${name}.svg`),
    plotSvg([
      { title: `${STARTS} starts in a row, ms each`, values: timesMs },
      { title: 'resident memory of the daemon meanwhile, MiB', values: samples.map((one) => one.daemonMib) },
      { title: `start of each of ${MACHINES} machines that go on running, ms`, values: crowd.timesMs },
    ]),
  );
  say(`\nraw samples: ${relative(process.cwd(), join(RESULTS, `${name}.json`))}`);
  return before === after;
}

const interruption = new AbortController();
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.on(name, () => interruption.abort(new Error(`interrupted by ${name}`)));
}
soak().then(
  (isWell) => {
    process.exitCode = isWell ? 0 : 1;
  },
  (error: unknown) => {
    process.stderr.write(`soak: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  },
);
