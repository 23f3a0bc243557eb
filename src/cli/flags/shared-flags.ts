import type { Filters } from '../../client/index.ts';
import type { FlagSpec } from './flag-table.ts';
import { UsageError } from './parse-flags.ts';

/** Flags that many commands have. */
export const FORMAT_FLAG = {
  kind: 'string',
  summary: "'json', 'table', 'table TEMPLATE' or a Go template",
  value: 'format',
} as const satisfies FlagSpec;
export const FILTER_FLAG = {
  kind: 'list',
  short: 'f',
  summary: 'Filter output based on conditions provided',
  value: 'key=value',
} as const satisfies FlagSpec;

/** `['label=a=b', 'status=running']` → filters of the API. Keys are lower case, as in Docker. */
export function parseFilters(entries: readonly string[]): Filters {
  const filters: Record<string, string[]> = {};
  for (const entry of entries) {
    const equals = entry.indexOf('=');
    if (equals === -1)
      throw new UsageError(
        `invalid argument ${JSON.stringify(entry)} for "-f, --filter" flag: invalid filter '${entry}'`,
      );
    (filters[entry.slice(0, equals).trim().toLowerCase()] ??= []).push(entry.slice(equals + 1).trim());
  }
  return filters;
}
