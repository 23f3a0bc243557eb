/** Go's `%.Ng`: at most so many significant digits, no trailing zeros. */
function significant(value: number, digits: number): string {
  const text = value.toPrecision(digits);
  return text.includes('e') ? String(Number(text)) : text.includes('.') ? text.replace(/\.?0+$/, '') : text;
}

function scale(value: number, base: number, units: readonly string[]): { amount: number; unit: string } {
  let amount = value;
  let step = 0;
  while (amount >= base && step < units.length - 1) {
    amount /= base;
    step += 1;
  }
  return { amount, unit: units[step] ?? '' };
}

const DECIMAL_UNITS = ['B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB'];
const BINARY_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];

/** Bytes in powers of 1000: `4.86MB`. Source: go-units HumanSize. */
export function formatDecimalBytes(bytes: number, digits = 3): string {
  const { amount, unit } = scale(bytes, 1000, DECIMAL_UNITS);
  return `${significant(amount, digits)}${unit}`;
}

/** Bytes in powers of 1024: `23.42GiB`. Source: go-units BytesSize. */
export function formatBinaryBytes(bytes: number): string {
  const { amount, unit } = scale(bytes, 1024, BINARY_UNITS);
  return `${significant(amount, 4)}${unit}`;
}

/** `3 minutes`, `About an hour`. Source: go-units HumanDuration. */
export function formatDuration(durationMs: number): string {
  const seconds = Math.floor(durationMs / 1000);
  if (seconds < 1) return 'Less than a second';
  if (seconds === 1) return '1 second';
  if (seconds < 60) return `${seconds} seconds`;
  const minutes = Math.floor(seconds / 60);
  if (minutes === 1) return 'About a minute';
  if (minutes < 60) return `${minutes} minutes`;
  const hours = Math.floor(seconds / 3600 + 0.5);
  if (hours === 1) return 'About an hour';
  if (hours < 48) return `${hours} hours`;
  if (hours < 24 * 7 * 2) return `${Math.floor(hours / 24)} days`;
  if (hours < 24 * 30 * 2) return `${Math.floor(hours / 24 / 7)} weeks`;
  if (hours < 24 * 365 * 2) return `${Math.floor(hours / 24 / 30)} months`;
  return `${Math.floor(seconds / 3600 / 24 / 365)} years`;
}

/** The first twelve digits, without the algorithm. */
export function shortId(id: string): string {
  return id.slice(id.indexOf(':') + 1).slice(0, 12);
}

/** Cut to so many characters; the last one then is an ellipsis. */
export function ellipsize(text: string, length: number): string {
  const characters = Array.from(text);
  return characters.length <= length ? text : `${characters.slice(0, length - 1).join('')}…`;
}

/** Go's `time.Time.String`, in local time: `2026-11-24 22:15:36 +0000 UTC`. */
export function formatGoTime(epochSeconds: number): string {
  const date = new Date(epochSeconds * 1000);
  const two = (value: number): string => String(value).padStart(2, '0');
  const offset = -date.getTimezoneOffset();
  const sign = offset < 0 ? '-' : '+';
  const zone = `${sign}${two(Math.floor(Math.abs(offset) / 60))}${two(Math.abs(offset) % 60)}`;
  const name =
    new Intl.DateTimeFormat('en-US', { timeZoneName: 'short' })
      .formatToParts(date)
      .find((part) => part.type === 'timeZoneName')?.value ?? 'UTC';
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())} ${zone} ${name}`;
}

/** RFC 3339 in local time with nine digits, as `docker events` prints. */
export function formatRfc3339Nano(epochNs: number | bigint): string {
  const ns = BigInt(epochNs);
  const seconds = ns / 1_000_000_000n;
  const date = new Date(Number(seconds) * 1000);
  const offset = -date.getTimezoneOffset();
  const local = new Date(date.getTime() + offset * 60_000).toISOString().slice(0, 19);
  const two = (value: number): string => String(value).padStart(2, '0');
  const zone =
    offset === 0
      ? 'Z'
      : `${offset < 0 ? '-' : '+'}${two(Math.floor(Math.abs(offset) / 60))}:${two(Math.abs(offset) % 60)}`;
  return `${local}.${String(ns % 1_000_000_000n).padStart(9, '0')}${zone}`;
}
