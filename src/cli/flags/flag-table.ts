/**
 * Flags as data: parsing, help pages and completion all read these tables.
 * - `boolean`: `--rm`, `--rm=false`; never takes the next word.
 * - `string`, `integer`: one value; the last one given wins.
 * - `list`: may be given again and again, each value as it is.
 * - `words`: as `list`, and every value may hold several, parted by commas.
 */
export interface FlagSpec {
  readonly kind: 'boolean' | 'string' | 'integer' | 'list' | 'words';
  readonly short?: string;
  readonly summary: string;
  /** What the value is called in help. */
  readonly value?: string;
  /** Given a value that is not legal, throws an Error whose message says what is wrong with it. */
  readonly check?: (value: string) => unknown;
  /** Not in help: spellings that Docker keeps for old scripts. */
  readonly hidden?: boolean;
}

export type FlagTable = Readonly<Record<string, FlagSpec>>;

type FlagValue<Spec extends FlagSpec> = Spec['kind'] extends 'boolean'
  ? boolean | undefined
  : Spec['kind'] extends 'string'
    ? string | undefined
    : Spec['kind'] extends 'integer'
      ? number | undefined
      : readonly string[];

/** By flag name; undefined where the flag was not given, the empty list for lists. */
export type FlagValues<Table extends FlagTable> = { readonly [Name in keyof Table]: FlagValue<Table[Name]> };

/** Keeps the table's literal types. */
export function defineFlags<const Table extends FlagTable>(table: Table): Table {
  return table;
}
