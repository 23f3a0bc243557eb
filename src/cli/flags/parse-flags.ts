import type { FlagSpec, FlagTable, FlagValues } from './flag-table.ts';

/** The command line itself is wrong; exit code 2, or 125 in run. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

export interface ParsedWords<Table extends FlagTable> {
  readonly flags: FlagValues<Table>;
  readonly words: readonly string[];
  /** `--help` was among them; nothing else was checked. */
  readonly help: boolean;
}

/**
 * Reads a command line the way Docker's CLI (pflag) does, because users' scripts depend on its fine points: `-it`, `-p8080:80`, `-e=A=b`,
 * booleans that never take the next word, everything after `--` is a word. yargs' own parser differs in each of them.
 *
 * @param interspersed whether flags may follow the first word (`rm NAME -f`), or the rest belongs to somebody else (`run IMAGE ls -l`)
 */
export function parseFlags<Table extends FlagTable>(
  argv: readonly string[],
  table: Table,
  interspersed: boolean,
): ParsedWords<Table> {
  const values: Record<string, boolean | string | number | string[] | undefined> = {};
  const byShort = new Map<string, string>();
  for (const [name, spec] of Object.entries(table)) {
    values[name] = spec.kind === 'list' || spec.kind === 'words' ? [] : undefined;
    if (spec.short !== undefined) byShort.set(spec.short, name);
  }
  const words: string[] = [];
  const pending = [...argv];
  const done = (help: boolean): ParsedWords<Table> => ({ flags: values as FlagValues<Table>, words, help });
  for (let word = pending.shift(); word !== undefined; word = pending.shift()) {
    if (word === '--') {
      words.push(...pending);
      break;
    }
    if (word === '-' || !word.startsWith('-')) {
      words.push(word);
      if (interspersed) continue;
      words.push(...pending);
      break;
    }
    if (word.startsWith('--')) {
      const equals = word.indexOf('=');
      const name = word.slice(2, equals === -1 ? undefined : equals);
      const spec = Object.hasOwn(table, name) ? table[name] : undefined;
      if (spec === undefined) {
        if (name === 'help') return done(true);
        throw new UsageError(`unknown flag: --${name}`);
      }
      if (equals !== -1) assign(values, name, spec, word.slice(equals + 1));
      else if (spec.kind === 'boolean') values[name] = true;
      else assign(values, name, spec, take(pending, `--${name}`));
      continue;
    }
    for (let letters = word.slice(1); letters !== '';) {
      const letter = letters.charAt(0);
      const name = byShort.get(letter);
      const spec = name === undefined ? undefined : table[name];
      if (name === undefined || spec === undefined) {
        if (letter === 'h') return done(true);
        throw new UsageError(`unknown shorthand flag: '${letter}' in ${word}`);
      }
      const rest = letters.slice(1);
      if (rest.startsWith('=')) assign(values, name, spec, rest.slice(1));
      else if (spec.kind === 'boolean') {
        values[name] = true;
        letters = rest;
        continue;
      } else if (rest !== '') assign(values, name, spec, rest);
      else assign(values, name, spec, take(pending, `'${letter}' in ${word}`));
      break;
    }
  }
  return done(false);
}

function take(pending: string[], described: string): string {
  const value = pending.shift();
  if (value === undefined) throw new UsageError(`flag needs an argument: ${described}`);
  return value;
}

function assign(values: Record<string, unknown>, name: string, spec: FlagSpec, text: string): void {
  try {
    spec.check?.(text);
    switch (spec.kind) {
      case 'boolean':
        values[name] = parseBoolean(text);
        return;
      case 'string':
        values[name] = text;
        return;
      case 'integer':
        values[name] = parseInteger(text);
        return;
      case 'list':
        (values[name] as string[]).push(text);
        return;
      case 'words':
        (values[name] as string[]).push(...text.split(','));
        return;
    }
  } catch (error) {
    const flag = spec.short === undefined ? `--${name}` : `-${spec.short}, --${name}`;
    throw new UsageError(
      `invalid argument ${JSON.stringify(text)} for "${flag}" flag: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}

/** Go's `strconv.ParseBool`. */
function parseBoolean(text: string): boolean {
  if (['1', 't', 'T', 'TRUE', 'true', 'True'].includes(text)) return true;
  if (['0', 'f', 'F', 'FALSE', 'false', 'False'].includes(text)) return false;
  throw new Error(`strconv.ParseBool: parsing ${JSON.stringify(text)}: invalid syntax`);
}

function parseInteger(text: string): number {
  const value = /^[+-]?\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value))
    throw new Error(`strconv.ParseInt: parsing ${JSON.stringify(text)}: invalid syntax`);
  return value;
}
