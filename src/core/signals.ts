import { constants } from 'node:os';
import { EngineError } from './errors.ts';

const REALTIME_MIN = 34;
const REALTIME_MAX = 64;

/** Signal number of `TERM`, `SIGTERM`, `sigterm`, `15`, `SIGRTMIN+3`; Linux x86-64 numbers. */
export function parseSignal(text: string): number {
  const trimmed = text.trim();
  if (/^\d+$/.test(trimmed)) {
    const number = Number(trimmed);
    if (number >= 1 && number <= REALTIME_MAX) return number;
    throw invalidSignal(text);
  }
  const name = trimmed.toUpperCase().replace(/^SIG/, '');
  const realtime = /^RT(MIN|MAX)(?:([+-])(\d+))?$/.exec(name);
  if (realtime) {
    const base = realtime[1] === 'MIN' ? REALTIME_MIN : REALTIME_MAX;
    const number = base + Number(realtime[3] ?? 0) * (realtime[2] === '-' ? -1 : 1);
    if (number >= REALTIME_MIN && number <= REALTIME_MAX) return number;
    throw invalidSignal(text);
  }
  const number = (constants.signals as Record<string, number>)[`SIG${name}`];
  if (number === undefined) throw invalidSignal(text);
  return number;
}

function invalidSignal(text: string): EngineError {
  return new EngineError('invalid-argument', `invalid signal: ${text}`);
}
