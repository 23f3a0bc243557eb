import type { LedgerLine } from './ledger.ts';
import { summarize } from './statistics.ts';
import type { Subject } from './subjects.ts';

export type SubjectName = Subject['name'];

export interface Measurement {
  readonly scenario: string;
  readonly subject: SubjectName;
  readonly samplesMs: readonly number[];
  /** Why there are no samples, or no more. */
  readonly failure?: string;
}

const TITLES: Record<SubjectName, string> = {
  booted: 'micro-VM, booted',
  restored: 'micro-VM, restored',
  pooled: 'micro-VM, pooled',
  prepared: 'micro-VM, prepared',
  os: 'host kernel',
  dockerd: "Debian's dockerd",
};
const ANCHOR: SubjectName = 'dockerd';

export function printTable(measurements: readonly Measurement[]): void {
  const rows = [['milliseconds', '', 'median', 'min', 'max', 'p95', 'to dockerd']];
  let previous = '';
  for (const measurement of measurements) {
    const { scenario, subject } = measurement;
    const anchor = measurements.find((other) => other.scenario === scenario && other.subject === ANCHOR);
    rows.push([scenario === previous ? '' : scenario, TITLES[subject], ...figures(measurement, anchor)]);
    previous = scenario;
  }
  printColumns(rows, 2);
}

function figures({ samplesMs, failure }: Measurement, anchor: Measurement | undefined): string[] {
  if (failure !== undefined) return [`n/a (${failure.split('\n', 1)[0]})`];
  const { median, min, max, p95 } = summarize(samplesMs);
  const isAnchored = anchor !== undefined && anchor.failure === undefined;
  const ratio = isAnchored ? (median / summarize(anchor.samplesMs).median).toFixed(2) : 'n/a';
  return [...[median, min, max, p95].map((ms) => ms.toFixed(0)), ratio];
}

export function printLedger(subject: SubjectName, lines: readonly LedgerLine[], runs: number): void {
  const heading = [`where the time goes: ${TITLES[subject]}, default bridge, ${runs} runs`, 'at ms', 'step ms'];
  const longest = Math.max(...lines.map(({ stepMs }) => stepMs));
  const rows = lines.map(({ name, atMs, stepMs }) => [
    `  ${name}`,
    atMs.toFixed(1),
    stepMs.toFixed(1),
    '#'.repeat(Math.round((stepMs / longest) * 30)),
  ]);
  printColumns([heading, ...rows], 1);
}

/** The first columns hold text, the others figures. */
function printColumns(rows: readonly (readonly string[])[], textColumns: number): void {
  // What says why something is missing runs on over the columns after it.
  const isSpilling = (cell: string): boolean => cell.startsWith('n/a (') || cell.startsWith('#');
  const count = Math.max(...rows.map((cells) => cells.length));
  const widths = Array.from({ length: count }, (_, column) =>
    Math.max(...rows.map((cells) => (isSpilling(cells[column] ?? '') ? 0 : (cells[column] ?? '').length))),
  );
  const text = rows.map((cells) =>
    cells
      .map((cell, column) => {
        const width = widths[column] ?? 0;
        return column < textColumns || isSpilling(cell) ? cell.padEnd(width) : cell.padStart(width);
      })
      .join('  ')
      .trimEnd(),
  );
  process.stdout.write(`\n${text.join('\n')}\n`);
}
