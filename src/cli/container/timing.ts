import type { WallAnswer } from '../../client/index.ts';
import { printLine, type CommandContext } from '../command.ts';

type Phases = NonNullable<WallAnswer['phases']>;

/** Prints the phases of a container's last start to stderr, because stdout is the program's. */
export async function printTiming(context: CommandContext, container: string): Promise<void> {
  const phases = (await context.client().containers.inspect(container)).Bulkhead?.phases ?? [];
  if (phases.length === 0) printLine(context.stderr, 'timing: the daemon told no phases for this container');
  for (const line of formatPhases(phases)) printLine(context.stderr, line);
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
