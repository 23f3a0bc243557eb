import type { Subject } from './subjects.ts';
import { median } from './statistics.ts';

export interface Moment {
  readonly name: string;
  /** Since the docker client was started. */
  readonly ms: number;
}

interface Inspected {
  readonly State: { readonly FinishedAt: string };
  readonly Bulkhead?: {
    readonly machineStart?: string;
    readonly phases?: readonly { readonly name: string; readonly monotonicNs: number }[];
  };
}

const INSPECTIONS = 50;

/** One run whose container outlives its end, told as moments: the client's start and end, and between them the phases that we recorded. */
export async function recordRun(
  { name: subject, engine, flags }: Subject,
  image: string,
  network: string,
): Promise<Moment[]> {
  const name = 'ledger';
  const args = ['--name', name, '--network', network, ...flags, image, 'true'];
  try {
    const { startedNs, endedNs } = await engine.docker('run', ...args);
    const inspected = await inspectCleared(engine, name);
    const start = inspected.Bulkhead?.machineStart ?? 'os';
    if (start !== subject) throw new Error(`this machine was ${start}, which is not what is measured here`);
    return momentsOf(inspected, startedNs, endedNs);
  } finally {
    await engine.docker('rm', '-f', name);
  }
}

/** The client is told of the end before all of it is cleared away. */
async function inspectCleared(engine: Subject['engine'], name: string): Promise<Inspected> {
  for (let attempt = 0; attempt < INSPECTIONS; attempt += 1) {
    const { stdout } = await engine.docker('inspect', name);
    const [container] = JSON.parse(stdout) as Inspected[];
    if (container?.Bulkhead?.phases?.some((phase) => phase.name === 'cleared')) return container;
  }
  throw new Error('docker inspect does not tell all phases');
}

function momentsOf(container: Inspected, startedNs: number, endedNs: number): Moment[] {
  const phases = container.Bulkhead?.phases ?? [];
  const finishedNs = Date.parse(container.State.FinishedAt) * 1e6 - realtimeMinusMonotonicNs();
  return [
    { name: 'client-started', monotonicNs: startedNs },
    ...phases,
    // Of a resolution of a millisecond, and in a micro-VM by the guest's clock.
    { name: 'finished-at', monotonicNs: finishedNs },
    { name: 'client-ended', monotonicNs: endedNs },
  ]
    .toSorted((first, second) => first.monotonicNs - second.monotonicNs)
    .map((moment) => ({ name: moment.name, ms: (moment.monotonicNs - startedNs) / 1e6 }));
}

function realtimeMinusMonotonicNs(): number {
  return Date.now() * 1e6 - Number(process.hrtime.bigint());
}

export interface LedgerLine {
  readonly name: string;
  /** Medians: when this was reached after the client's start, and how long after the moment before it. */
  readonly atMs: number;
  readonly stepMs: number;
}

/** A name that comes twice in one run is told apart by its order. */
export function summarizeRuns(runs: readonly (readonly Moment[])[]): LedgerLine[] {
  const at = new Map<string, number[]>();
  const step = new Map<string, number[]>();
  for (const moments of runs) {
    const seen = new Map<string, number>();
    moments.forEach(({ name, ms }, index) => {
      const count = (seen.get(name) ?? 0) + 1;
      seen.set(name, count);
      const key = count === 1 ? name : `${name} (${count})`;
      at.set(key, [...(at.get(key) ?? []), ms]);
      step.set(key, [...(step.get(key) ?? []), ms - (moments[index - 1]?.ms ?? ms)]);
    });
  }
  return [...at]
    .map(([name, times]) => ({ name, atMs: median(times), stepMs: median(step.get(name) ?? []) }))
    .toSorted((first, second) => first.atMs - second.atMs);
}
