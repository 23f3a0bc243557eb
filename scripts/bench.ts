/**
 * `make bench`: how long a start takes behind each of our walls and under Debian's dockerd, containerd and runc, through the same docker
 * client, with the same image, in one run. The subjects take turns, so that whatever else the machine does hits all alike; only the ratios
 * mean something beyond this machine. `make bench RUNS=30` takes more samples. The raw samples stay in build/bench/.
 */
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { cpus, loadavg, release, tmpdir } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { busyboxImage, packImages } from '../test/support/archive.ts';
import { recordRun, summarizeRuns, type Moment } from './bench/ledger.ts';
import { run } from './bench/programs.ts';
import { printLedger, printTable, type Measurement, type SubjectName } from './bench/report.ts';
import { SCENARIOS, type Scenario } from './bench/scenarios.ts';
import {
  MACHINE_STARTS,
  startBulkhead,
  startDockerd,
  type Engine,
  type MachineStart,
  type Subject,
} from './bench/subjects.ts';
import { makeUserland } from './debian-userland.ts';

const ROOT = resolve(import.meta.dirname, '..');
const RESULTS = join(ROOT, 'build', 'bench');
const IMAGE = 'bench/busybox:latest';
const DEBIAN = 'bench/debian:latest';
const RUNS = countFrom('RUNS', 15);
const WARM_UPS = countFrom('WARM_UPS', 2);
/** So that what a container's end leaves to be done is not counted as the next one's start. */
const SETTLE_MS = 100;
const IDLE_LOAD = 0.5;

function countFrom(variable: string, fallback: number): number {
  const text = process.env[variable];
  if (text === undefined || text === '') return fallback;
  if (!/^[1-9]\d{0,3}$/.test(text)) throw new Error(`${variable}=${text}: give a number from 1 to 9999`);
  return Number(text);
}

const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
const say = (text: string): void => void process.stdout.write(`${text}\n`);

/** Samples by turns: each round asks every subject once, and begins with another one each time. */
async function measure(scenario: Scenario, subjects: readonly Subject[], signal: AbortSignal): Promise<Measurement[]> {
  const samples = new Map(subjects.map((subject) => [subject, [] as number[]]));
  const failures = new Map<Subject, string>();
  const rounds = Math.ceil(RUNS * scenario.share);
  const warmUps = Math.ceil(WARM_UPS * scenario.share);
  for (let round = 0; round < warmUps + rounds; round += 1) {
    const first = round % subjects.length;
    for (const subject of [...subjects.slice(first), ...subjects.slice(0, first)]) {
      if (failures.has(subject)) continue;
      signal.throwIfAborted();
      try {
        await subject.engine.settle();
        const ms = await scenario.measure(subject, scenario.image === 'debian' ? DEBIAN : IMAGE);
        if (round >= warmUps) samples.get(subject)?.push(ms);
      } catch (error) {
        failures.set(subject, reasonOf(error));
        process.stderr.write(`bench: ${scenario.title}, ${subject.name}: ${reasonOf(error)}\n`);
      }
      await sleep(SETTLE_MS);
    }
  }
  return subjects.map((subject) => {
    const failure = failures.get(subject);
    const measurement = { scenario: scenario.title, subject: subject.name, samplesMs: samples.get(subject) ?? [] };
    return failure === undefined ? measurement : { ...measurement, failure };
  });
}

async function recordLedgers(subjects: readonly Subject[], signal: AbortSignal): Promise<Map<SubjectName, Moment[][]>> {
  const ledgers = new Map<SubjectName, Moment[][]>(subjects.map(({ name }) => [name, []]));
  const failed = new Set<Subject>();
  // Machines are prepared for the image that came twice in a row.
  for (const { engine, flags } of subjects.filter(({ name }) => name === 'prepared')) {
    for (let count = 0; count < 2; count += 1) {
      await engine.settle();
      await engine.docker('run', '--rm', ...flags, IMAGE, 'true');
    }
  }
  for (let round = 0; round < RUNS; round += 1) {
    for (const subject of subjects) {
      if (failed.has(subject)) continue;
      signal.throwIfAborted();
      try {
        await subject.engine.settle();
        ledgers.get(subject.name)?.push(await recordRun(subject, IMAGE, 'bridge'));
      } catch (error) {
        failed.add(subject);
        ledgers.delete(subject.name);
        process.stderr.write(`bench: phases, ${subject.name}: ${reasonOf(error)}\n`);
      }
      await sleep(SETTLE_MS);
    }
  }
  return ledgers;
}

async function startSubjects(
  root: string,
  stack: AsyncDisposableStack,
): Promise<{ ours: Subject[]; theirs: Subject[]; absence?: string }> {
  const archive = join(root, 'image.tar');
  await writeFile(archive, await packImages([await busyboxImage(IMAGE)]));
  const userland = join(ROOT, 'build', 'bench', 'userland.tar');
  if (!existsSync(userland)) {
    say('* a Debian userland with python3, once');
    await mkdir(RESULTS, { recursive: true });
    await makeUserland(userland, ['python3-minimal']);
  }
  const load = async (engine: Engine): Promise<Engine> => {
    await engine.docker('load', '-i', archive);
    await engine.docker('import', userland, DEBIAN);
    return engine;
  };
  const ours: Subject[] = [];
  for (const [index, [name, options]] of Object.entries(MACHINE_STARTS).entries()) {
    const place = { bridgePrefix: `bhb${index}`, options };
    const engine = await load(await startBulkhead(join(root, name), place, stack));
    ours.push({ name: name as MachineStart, engine, flags: ['--isolation', 'vm'] });
    // Not in front of a daemon that has a pool to refill.
    if (name === 'restored') ours.push({ name: 'os', engine, flags: ['--isolation', 'os'] });
  }
  try {
    const theirs = await load(await startDockerd(join(root, 'dockerd'), stack));
    return { ours, theirs: [{ name: 'dockerd', engine: theirs, flags: [] }] };
  } catch (error) {
    process.stderr.write(`bench: goes on without dockerd: ${reasonOf(error)}\n`);
    return { ours, theirs: [], absence: reasonOf(error) };
  }
}

async function describeMachine(subjects: readonly Subject[]): Promise<Record<string, unknown>> {
  const commit = await run('git', ['-C', ROOT, 'rev-parse', 'HEAD']).then(
    ({ stdout }) => stdout.trim(),
    () => undefined,
  );
  const versions: Record<string, unknown> = {};
  const kernels: Record<string, string> = {};
  for (const { name, engine, flags } of subjects) {
    versions[name] = JSON.parse((await engine.docker('version', '--format', '{{json .}}')).stdout);
    const seen = await engine.docker('run', '--rm', '--network', 'none', ...flags, IMAGE, 'uname', '-r');
    kernels[name] = seen.stdout.trim();
    say(`${name}: kernel ${kernels[name]}`);
  }
  return { kernel: release(), cpu: cpus()[0]?.model, cpus: cpus().length, commit, kernels, versions };
}

async function bench(signal: AbortSignal): Promise<boolean> {
  const startedAt = new Date().toISOString();
  const loadBefore = loadavg();
  say(`load of this machine: ${loadBefore.map((load) => load.toFixed(2)).join(' ')}, ${cpus().length} CPUs`);
  if ((loadBefore[0] ?? 0) > IDLE_LOAD) say('warning: this machine is not idle; the figures are no more than a hint');

  const root = await mkdtemp(join(tmpdir(), 'bh-bench-'));
  await using stack = new AsyncDisposableStack();
  stack.defer(() => rm(root, { recursive: true, force: true }));
  const { ours, theirs, absence } = await startSubjects(root, stack);
  const subjects = [...ours, ...theirs];
  const machine = await describeMachine(subjects);

  const measurements: Measurement[] = [];
  for (const scenario of SCENARIOS) {
    say(`* ${scenario.title}`);
    measurements.push(...(await measure(scenario, subjects, signal)));
    if (absence !== undefined) {
      measurements.push({ scenario: scenario.title, subject: 'dockerd', samplesMs: [], failure: absence });
    }
  }
  say('* phases');
  const ledgers = await recordLedgers(ours, signal);

  printTable(measurements);
  for (const [subject, runs] of ledgers) printLedger(subject, summarizeRuns(runs), runs.length);
  await mkdir(RESULTS, { recursive: true });
  const path = join(RESULTS, `${startedAt.replaceAll(/[:.]/g, '-')}.json`);
  const result = {
    startedAt,
    runs: RUNS,
    warmUps: WARM_UPS,
    loadBefore,
    loadAfter: loadavg(),
    machine,
    measurements,
    ledgers: Object.fromEntries(ledgers),
  };
  await writeFile(path, `${JSON.stringify(result, undefined, 1)}\n`);
  say(`\nraw samples: ${relative(process.cwd(), path)}`);
  const areOursMeasured = measurements.every(({ subject, failure }) => subject === 'dockerd' || failure === undefined);
  return areOursMeasured && ours.every(({ name }) => ledgers.has(name));
}

const interruption = new AbortController();
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.on(name, () => interruption.abort(new Error(`interrupted by ${name}`)));
}
bench(interruption.signal).then(
  (isComplete) => {
    process.exitCode = isComplete ? 0 : 1;
  },
  (error: unknown) => {
    process.stderr.write(`bench: ${reasonOf(error)}\n`);
    process.exitCode = 1;
  },
);
