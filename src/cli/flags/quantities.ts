/** Docker's notations of amounts, read. Each throws an Error that says what is wrong; the flag's name is added by the caller. */

const BINARY_FACTORS: Readonly<Record<string, number>> = {
  '': 1,
  k: 1024,
  m: 1024 ** 2,
  g: 1024 ** 3,
  t: 1024 ** 4,
  p: 1024 ** 5,
};

/** `512m`, `1.5g`, `64MiB`, `1024` → bytes. Source: go-units RAMInBytes. */
export function parseBytes(text: string): number {
  const match = /^(\d+(?:\.\d+)?) ?(?:([kmgtp])?(?:i?b)?)?$/i.exec(text);
  const factor = match === null ? undefined : BINARY_FACTORS[(match[2] ?? '').toLowerCase()];
  const value = match === null || factor === undefined ? Number.NaN : Math.floor(Number(match[1]) * factor);
  if (!Number.isSafeInteger(value)) throw new Error(`invalid size: '${text}'`);
  return value;
}

/** As bytes; `-1` stands for "no limit". */
export function parseBytesOrUnlimited(text: string): number {
  return text === '-1' ? -1 : parseBytes(text);
}

/** `1.5`, `.5`, `3/2` → billionths of a CPU. */
export function parseNanoCpus(text: string): number {
  const fraction = /^(\d+)\/(\d+)$/.exec(text);
  const cpus =
    fraction === null
      ? /^(\d+\.?\d*|\.\d+)$/.test(text)
        ? Number(text)
        : Number.NaN
      : Number(fraction[1]) / Number(fraction[2]);
  if (!Number.isFinite(cpus)) throw new Error(`failed to parse ${text} as a rational number`);
  const nanoCpus = Math.round(cpus * 1e9);
  if (Math.abs(nanoCpus / 1e9 - cpus) > 1e-12 && fraction === null) throw new Error('value is too precise');
  return nanoCpus;
}

const DURATION_NANOSECONDS: Readonly<Record<string, number>> = {
  ns: 1,
  us: 1e3,
  µs: 1e3,
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3600e9,
};

/** Go's durations: `1h30m`, `500ms`, `1.5s` → nanoseconds. */
export function parseDurationNs(text: string): number {
  if (text === '0') return 0;
  const parts = [...text.matchAll(/(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)/g)];
  if (parts.length === 0 || parts.map((part) => part[0]).join('') !== text)
    throw new Error(`time: invalid duration ${JSON.stringify(text)}`);
  return Math.round(
    parts.reduce((sum, part) => sum + Number(part[1]) * (DURATION_NANOSECONDS[part[2] ?? ''] ?? Number.NaN), 0),
  );
}

/**
 * A moment for `--since` and `--until`: seconds since 1970, RFC 3339 (also shortened, then in local time), or how long ago (`42m`), as the
 * API's `SECONDS[.NANOSECONDS]`.
 */
export function parseMoment(text: string, nowMs: number): string {
  if (/^\d+(\.\d{1,9})?$/.test(text)) return text;
  const date = /^(\d{4}-\d\d-\d\d)(?:T(\d\d)(?::(\d\d)(?::(\d\d)(\.\d{1,9})?)?)?)?(Z|[+-]\d\d:\d\d)?$/.exec(text);
  if (date !== null) {
    const [, day, hour = '00', minute = '00', second = '00', fraction = '', zone = ''] = date;
    const ms = Date.parse(`${day}T${hour}:${minute}:${second}${zone}`);
    if (Number.isFinite(ms)) return `${Math.floor(ms / 1000)}.${fraction.slice(1).padEnd(9, '0')}`;
  }
  const agoNs = /^-/.test(text) ? parseDurationNs(text.slice(1)) : parseDurationNs(text);
  const thenMs = nowMs - agoNs / 1e6;
  const seconds = Math.floor(thenMs / 1000);
  return `${seconds}.${String(Math.floor((thenMs - seconds * 1000) * 1e6)).padStart(9, '0')}`;
}
