import { EngineError } from './errors.ts';

const BINARY_UNITS: Readonly<Record<string, number>> = {
  b: 1,
  k: 1024,
  m: 1024 ** 2,
  g: 1024 ** 3,
  t: 1024 ** 4,
  p: 1024 ** 5,
};

/** Bytes of `512`, `10m`, `1.5g`, `64MiB`, `2gb`: powers of 1024, any case. Source: go-units RAMInBytes. */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([bkmgtp])?(?:i?b)?$/i.exec(text.trim());
  const value = Number(match?.[1]) * (BINARY_UNITS[(match?.[2] ?? 'b').toLowerCase()] ?? Number.NaN);
  if (!match || !Number.isSafeInteger(Math.floor(value)))
    throw new EngineError('invalid-argument', `invalid size: '${text}'`);
  return Math.floor(value);
}
