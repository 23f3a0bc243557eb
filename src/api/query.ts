import { EngineError } from '../core/errors.ts';

const FALSE_WORDS: ReadonlySet<string> = new Set(['', '0', 'no', 'false', 'none']);
const INTEGER = /^[+-]?\d{1,15}$/;
const TIMESTAMP = /^(-?\d{1,12})(?:\.(\d{1,9}))?$/;

/** Docker's booleans: these five words are false, everything else is true; what is missing is `missing`. */
export function booleanParameter(query: URLSearchParams, name: string, missing = false): boolean {
  const value = query.get(name);
  if (value === null) return missing;
  return !FALSE_WORDS.has(value.trim().toLowerCase());
}

/** Undefined where it is missing or empty. */
export function integerParameter(query: URLSearchParams, name: string): number | undefined {
  const value = query.get(name);
  if (value === null || value === '') return undefined;
  if (!INTEGER.test(value)) {
    throw new EngineError(
      'invalid-argument',
      `invalid value ${JSON.stringify(value)} for parameter ${name}: must be an integer`,
    );
  }
  return Number(value);
}

/** Undefined where it is missing or empty. */
export function textParameter(query: URLSearchParams, name: string): string | undefined {
  const value = query.get(name);
  return value === null || value === '' ? undefined : value;
}

/** Docker's `seconds[.nanoseconds]` as nanoseconds since 1970. Missing, empty and 0 set no bound. */
export function timestampParameter(query: URLSearchParams, name: string): bigint | undefined {
  const value = query.get(name);
  if (value === null || value === '' || value === '0') return undefined;
  const match = TIMESTAMP.exec(value);
  if (match === null) {
    throw new EngineError(
      'invalid-argument',
      `invalid value ${JSON.stringify(value)} for parameter ${name}: must be seconds since 1970, with or without a fraction of up to nine digits`,
    );
  }
  const seconds = BigInt(match[1] ?? '0');
  const fraction = BigInt((match[2] ?? '').padEnd(9, '0'));
  return seconds * 1_000_000_000n + fraction;
}
