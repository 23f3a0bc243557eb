import type { Writable } from 'node:stream';
import type { ProgressMessage } from '../../client/index.ts';
import { EngineError } from '../../core/errors.ts';
import { formatDecimalBytes } from './units.ts';

/** Length of a progress bar, characters. */
const BAR_LENGTH = 50;
/** Narrower terminals get no bar. */
const MIN_COLUMNS_FOR_BAR = 110;

type Sink = Writable & { readonly isTTY?: boolean; readonly columns?: number };

/**
 * Shows the messages of a pull, push or load as Docker does: one line a layer, redrawn in place on a terminal, and a line a message otherwise.
 * Throws what the daemon reports as the stream's error. Without a sink nothing is shown.
 * @param onAux gets what messages carry for programs
 */
export async function renderProgress(
  messages: AsyncIterable<ProgressMessage>,
  sink: Sink | undefined,
  onAux?: (aux: unknown) => void,
): Promise<void> {
  const lines = new Map<string, number>();
  for await (const message of messages) {
    if (message.aux !== undefined && message.aux !== null) onAux?.(message.aux);
    const failure = message.errorDetail?.message || message.error;
    if (failure) throw new EngineError(message.errorDetail?.code === 401 ? 'unauthorized' : 'internal', failure);
    if (sink !== undefined) showMessage(message, sink, lines);
  }
}

function showMessage(message: ProgressMessage, sink: Sink, lines: Map<string, number>): void {
  if (message.stream) {
    sink.write(message.stream);
    return;
  }
  const isProgress = (message.progressDetail?.current ?? 0) > 0 || (message.progress ?? '') !== '';
  if (sink.isTTY !== true) {
    // A log file is not served by thousands of lines of percentages.
    if (!isProgress && message.status) sink.write(`${message.id ? `${message.id}: ` : ''}${message.status}\n`);
    return;
  }
  const text =
    `${message.id ? `${message.id}: ` : ''}${message.status ?? ''} ${formatBar(message, sink.columns ?? 80)}`.trimEnd();
  if (!message.id || message.progressDetail === undefined || message.progressDetail === null) {
    // Such a line ends the block of lines that are redrawn.
    if (!message.id) lines.clear();
    if (!message.id || !lines.has(message.id)) {
      sink.write(`${text}\r\n`);
      if (message.id) lines.set(message.id, lines.size);
      return;
    }
  }
  const id = message.id ?? '';
  const known = lines.get(id);
  if (known === undefined) {
    lines.set(id, lines.size);
    sink.write(`${text}\r\n`);
    return;
  }
  const up = lines.size - known;
  sink.write(`\x1b[${up}A\x1b[2K\r${text}\r\x1b[${up}B`);
}

/** `[=====>     ]  1.2MB/3.4MB`. Source: moby pkg/jsonmessage, JSONProgress.String. */
export function formatBar(message: Pick<ProgressMessage, 'progressDetail' | 'progress'>, columns: number): string {
  const current = message.progressDetail?.current ?? 0;
  const total = message.progressDetail?.total ?? 0;
  if (current <= 0 && total <= 0) return message.progress ?? '';
  const shown = (value: number): string =>
    message.progressDetail?.units ? `${value} ${message.progressDetail.units}` : formatDecimalBytes(value, 4);
  if (total <= 0) return shown(current).padStart(8);
  const filled = Math.min(BAR_LENGTH, Math.floor((Math.min(current, total) / total) * BAR_LENGTH));
  const bar =
    columns > MIN_COLUMNS_FOR_BAR
      ? `[${'='.repeat(filled)}${filled < BAR_LENGTH ? '>' : ''}${' '.repeat(Math.max(0, BAR_LENGTH - filled - 1))}]  `
      : '';
  const counts =
    message.progressDetail?.hidecounts === true
      ? ''
      : current <= total
        ? `${shown(current).padStart(8)}/${shown(total)}`
        : shown(current).padStart(8);
  return bar + counts;
}
