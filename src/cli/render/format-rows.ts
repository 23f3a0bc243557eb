import { evaluateTemplate } from '../go-template/evaluate-template.ts';
import { parseTemplate } from '../go-template/parse-template.ts';
import { TemplateError, type TemplateNode } from '../go-template/syntax.ts';
import type { TemplateFunction } from '../go-template/template-functions.ts';
import { toJson } from '../go-template/template-values.ts';
import { alignTable } from './table.ts';

/** A row's members by the names that templates use; functions are methods. */
export type Row = Readonly<Record<string, unknown>>;

export interface RowFormat {
  /** What `--format` said; undefined or `table` is the default table. */
  readonly format: string | undefined;
  /** Template of the default table, cells parted by tabs. */
  readonly defaultTable: string;
  /** Heads of the columns by member name. */
  readonly headers: Readonly<Record<string, string>>;
}

/** In the head of a table a function has nothing to do: `{{upper .Names}}` is headed `NAMES`. */
const HEADER_FUNCTIONS: Readonly<Record<string, TemplateFunction>> = Object.fromEntries(
  ['json', 'lower', 'upper', 'title', 'truncate', 'pad', 'join', 'println'].map((name) => [
    name,
    (value: unknown) => value,
  ]),
);

/** Text of a list as `--format` wants it, each line ended; empty when there is nothing to print. */
export function formatRows(rows: readonly Row[], { format, defaultTable, headers }: RowFormat): string {
  const chosen =
    format === undefined || format.trim() === '' || format.trim() === 'table' ? `table ${defaultTable}` : format;
  const isTable = /^table\s/.test(chosen);
  const source = isTable ? chosen.replace(/^table\s+/, '') : chosen.trim() === 'json' ? '{{json .}}' : chosen;
  const template = compileFormat(source);
  const lines = rows.map((row) => {
    try {
      return evaluateTemplate(template, row, {
        json: (value) => (value === row ? escapeMarkup(toJson(row)) : toJson(value)),
      });
    } catch (error) {
      throw error instanceof TemplateError
        ? new TemplateError(`failed to execute template: ${error.message}`, { cause: error })
        : error;
    }
  });
  if (!isTable) return lines.map((line) => `${line}\n`).join('');
  const label: TemplateFunction = (name) => String(name).split('.').at(-1)?.replace(/[-_]/g, ' ') ?? '';
  const head = evaluateTemplate(template, { ...headers, Label: label }, HEADER_FUNCTIONS);
  return `${alignTable([head, ...lines])}\n`;
}

/** Go's encoder escapes these in a row as a whole, but not in a single member; Docker's users see both. */
function escapeMarkup(json: string): string {
  return json.replaceAll('<', '\\u003c').replaceAll('>', '\\u003e').replaceAll('&', '\\u0026');
}

/** Reads a format; `\t` and `\n` written out are what they stand for. */
export function compileFormat(format: string): readonly TemplateNode[] {
  try {
    return parseTemplate(format.replaceAll('\\t', '\t').replaceAll('\\n', '\n'));
  } catch (error) {
    throw error instanceof TemplateError
      ? new TemplateError(`failed to parse template: ${error.message}`, { cause: error })
      : error;
  }
}

/** One value (version, info, inspect) through a format. */
export function formatValue(value: unknown, format: string): string {
  return evaluateTemplate(compileFormat(format.trim() === 'json' ? '{{json .}}' : format), value);
}
