import { readFileSync } from 'node:fs';
import { UsageError } from '../flags/parse-flags.ts';

/** For `-e`: a name must come first. */
export function checkEnvironmentVariable(text: string): void {
  if (text === '' || text.startsWith('=')) throw new Error(`invalid environment variable: ${text}`);
}

/** Files first, then `-e`, as Docker orders them. A name without a value takes the caller's, or is left out if he has none. */
export function collectEnvironment(
  files: readonly string[],
  variables: readonly string[],
  own: Readonly<Record<string, string | undefined>>,
): string[] {
  const fromFiles = files.flatMap((file) => readKeyValueFile(file, 'environment variable'));
  return [...fromFiles, ...variables].flatMap((entry) => {
    if (entry.includes('=')) return [entry];
    const value = own[entry];
    return value === undefined ? [] : [`${entry}=${value}`];
  });
}

/** Files first, then `--label`; without a value the label is empty. */
export function collectLabels(files: readonly string[], labels: readonly string[]): Record<string, string> {
  return parseKeyValues([...files.flatMap((file) => readKeyValueFile(file, 'label')), ...labels]);
}

/** `['a=b', 'c']` → `{ a: 'b', c: '' }`. */
export function parseKeyValues(entries: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    entries.map((entry) => {
      const equals = entry.indexOf('=');
      return equals === -1 ? [entry, ''] : [entry.slice(0, equals), entry.slice(equals + 1)];
    }),
  );
}

/** Lines of a file but for empty ones and comments. Leading blanks of a line do not count; what follows the name is taken as it is. */
function readKeyValueFile(path: string, subject: string): string[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new UsageError(
      `open ${path}: cannot read the file of ${subject}s: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
  const lines = text
    .replace(/^\uFEFF/, '')
    .split(/\r?\n/)
    .map((line) => line.trimStart());
  return lines
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => {
      const equals = line.indexOf('=');
      const name = equals === -1 ? line : line.slice(0, equals);
      if (name === '') throw new UsageError(`no variable name on line '${line}' of ${path}`);
      if (/\s/.test(name.trimEnd()) || (equals !== -1 && /\s/.test(name))) {
        throw new UsageError(`variable '${name}' of ${path} contains whitespaces`);
      }
      return equals === -1 ? name.trimEnd() : line;
    });
}
