/** How Go sees JSON values: truth, printing, order. */

export function isTrue(value: unknown): boolean {
  if (value === undefined || value === null || value === false || value === 0 || value === '') return false;
  if (Array.isArray(value)) return value.length > 0;
  return typeof value === 'object' ? Object.keys(value).length > 0 : true;
}

/** `fmt.Print` of a value: `[a b]`, `map[k:v]`, `<no value>`. */
export function printValue(value: unknown): string {
  if (value === undefined || value === null) return '<no value>';
  return printNested(value);
}

function printNested(value: unknown): string {
  if (value === undefined || value === null) return '<nil>';
  if (typeof value === 'number') return printNumber(value);
  if (Array.isArray(value)) return `[${value.map(printNested).join(' ')}]`;
  if (typeof value === 'object') {
    const entries = sortedEntries(value).filter(([, member]) => typeof member !== 'function');
    return `map[${entries.map(([key, member]) => `${key}:${printNested(member)}`).join(' ')}]`;
  }
  return typeof value === 'string' ? value : typeof value === 'boolean' ? String(value) : JSON.stringify(value);
}

function printNumber(value: number): string {
  return Number.isInteger(value) ? BigInt(value).toString() : String(value);
}

/** Go prints and ranges over maps in the order of their keys (bytes). */
export function sortedEntries(map: object): [string, unknown][] {
  return Object.entries(map).sort(([left], [right]) => (left < right ? -1 : left > right ? 1 : 0));
}

/** JSON as Go's encoder writes it: `<`, `>` and `&` are kept (Docker turns that escaping off), keys in the daemon's order. */
export function toJson(value: unknown): string {
  return JSON.stringify(value ?? null)
    .replaceAll('\u2028', '\\u2028')
    .replaceAll('\u2029', '\\u2029');
}
