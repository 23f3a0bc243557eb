import { setTimeout as delay } from 'node:timers/promises';
import type { WallAnswer } from '../../client/index.ts';
import { printLine, type CommandContext } from '../command.ts';

const ATTEMPTS = 100;
const ATTEMPT_MS = 20;

type Phases = NonNullable<WallAnswer['phases']>;

/** What a run looks like from here. Told beside the daemon's phases only where both are of one clock: on one host. */
export class ClientMoments {
  readonly #list: { name: string; monotonicNs: number }[] = [];

  constructor() {
    // The first moment is the start of this program, which is before its first line.
    this.#list.push({ name: 'client-started', monotonicNs: now() - performance.now() * 1e6 });
  }

  mark(name: string): void {
    this.#list.push({ name: `client-${name}`, monotonicNs: now() });
  }

  list(): Phases {
    return this.#list;
  }
}

/** CLOCK_MONOTONIC, as the daemon's phases are told in (node: process.hrtime). */
function now(): number {
  return Number(process.hrtime.bigint());
}

/** Prints the phases of a container's last start to stderr, because stdout is the program's. */
export async function printTiming(context: CommandContext, container: string, moments: ClientMoments): Promise<void> {
  const phases = await readPhases(context, container);
  if (phases.length === 0) printLine(context.stderr, 'timing: the daemon told no phases for this container');
  const isSameHost = context.client().host.startsWith('unix://');
  const all = isSameHost ? [...phases, ...moments.list()] : phases;
  const ordered = all.toSorted((first, second) => Number(first.monotonicNs) - Number(second.monotonicNs));
  for (const line of formatPhases(ordered)) printLine(context.stderr, line);
}

/** A container that ended is told of before its sandbox is cleared away; the account of its life is complete only then. */
async function readPhases(context: CommandContext, container: string): Promise<Phases> {
  for (let attempt = 1; ; attempt++) {
    const { State: state, Bulkhead: facts } = await context.client().containers.inspect(container);
    const phases = facts?.phases ?? [];
    const isComplete = state.Running || phases.some(({ name }) => name === 'cleared');
    if (isComplete || attempt === ATTEMPTS) return phases;
    await delay(ATTEMPT_MS);
  }
}

/** One line a phase: milliseconds since the first one and since the one before. */
export function formatPhases(phases: Phases): string[] {
  const moments = phases.map(({ name, monotonicNs }) => ({ name, ms: Number(monotonicNs) / 1e6 }));
  const first = moments[0]?.ms ?? 0;
  return moments.map(({ name, ms }, index) => {
    const before = moments[index - 1]?.ms ?? ms;
    return `${(ms - first).toFixed(1).padStart(9)} ms  ${`+${(ms - before).toFixed(1)}`.padStart(8)} ms  ${name}`;
  });
}
