import { pino, type Logger } from 'pino';
import type { DaemonSettings } from './daemon-options.ts';

/** The daemon's log, to stderr: JSON lines, or with `text` one readable line per message. */
export function createLogger(settings: Pick<DaemonSettings, 'log-level' | 'log-format'>): Logger {
  const options = { level: settings['log-level'], base: null, timestamp: pino.stdTimeFunctions.isoTime };
  if (settings['log-format'] === 'json') return pino(options, pino.destination({ dest: 2, sync: true }));
  return pino(options, { write: (line: string) => process.stderr.write(toText(line)) });
}

const LEVELS: Readonly<Record<number, string>> = {
  10: 'TRACE',
  20: 'DEBUG',
  30: 'INFO',
  40: 'WARN',
  50: 'ERROR',
  60: 'FATAL',
};

function toText(line: string): string {
  const { level, time, msg, err, ...facts } = JSON.parse(line) as Record<string, unknown>;
  const cause = err && typeof err === 'object' && 'stack' in err ? `\n  ${String(err.stack)}` : '';
  const rest = Object.entries(facts).map(
    ([key, value]) => ` ${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
  );
  return `${String(time)} ${LEVELS[Number(level)] ?? ''} ${typeof msg === 'string' ? msg : ''}${rest.join('')}${cause}\n`;
}
