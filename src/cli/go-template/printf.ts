import { printValue } from './template-values.ts';

/** Widths beyond this are a mistake, characters. */
const MAX_WIDTH = 1000;

/** The verbs of Go's printf that formats use: `%s %v %d %q %t %x %X %f %c %%`, with `-`, `0`, `+`, width and precision. */
export function formatPrintf(format: string, values: readonly unknown[]): string {
  let next = 0;
  const text = format.replace(
    /%([-+0# ]*)(\d+)?(?:\.(\d+))?([a-zA-Z%])/g,
    (whole, flags: string, width: string | undefined, precision: string | undefined, verb: string) => {
      if (verb === '%') return '%';
      if (next >= values.length) return `%!${verb}(MISSING)`;
      const formatted = formatVerb(
        verb,
        values[next++],
        flags,
        precision === undefined ? undefined : Number(precision),
      );
      if (formatted === undefined) return whole;
      const columns = Math.min(Number(width ?? 0), MAX_WIDTH);
      if (flags.includes('-')) return formatted.padEnd(columns);
      if (!flags.includes('0') || verb === 's' || verb === 'q') return formatted.padStart(columns);
      return formatted.startsWith('-')
        ? `-${formatted.slice(1).padStart(columns - 1, '0')}`
        : formatted.padStart(columns, '0');
    },
  );
  const surplus = values.slice(next).map((value) => `${typeof value}=${printValue(value)}`);
  return surplus.length === 0 ? text : `${text}%!(EXTRA ${surplus.join(', ')})`;
}

function formatVerb(verb: string, value: unknown, flags: string, precision: number | undefined): string | undefined {
  switch (verb) {
    case 's':
    case 'v':
      return precision === undefined ? printValue(value) : printValue(value).slice(0, precision);
    case 'd':
      if (typeof value !== 'number') return `%!d(${typeof value}=${printValue(value)})`;
      return `${flags.includes('+') && value >= 0 ? '+' : ''}${printValue(value)}`;
    case 'q':
      return JSON.stringify(printValue(value));
    case 't':
      return typeof value === 'boolean' ? String(value) : `%!t(${typeof value}=${printValue(value)})`;
    case 'x':
    case 'X': {
      const hexadecimal =
        typeof value === 'number' ? value.toString(16) : Buffer.from(printValue(value)).toString('hex');
      return verb === 'X' ? hexadecimal.toUpperCase() : hexadecimal;
    }
    case 'f':
      return Number(value).toFixed(Math.min(precision ?? 6, 100));
    case 'c':
      return String.fromCodePoint(Number(value));
    default:
      return undefined;
  }
}
