export interface CallOptions {
  /** Aborting it ends the request and destroys its streams. */
  readonly signal?: AbortSignal | undefined;
}

/** Docker's filters: `{ label: ['a=b', 'c'] }`. Values of a key are alternatives, keys are joined by "and". */
export type Filters = Readonly<Record<string, readonly string[]>>;

/** The notation of the wire: a map of sets, `{"label":{"a=b":true}}`. Undefined when nothing is filtered. */
export function encodeFilters(filters: Filters | undefined): string | undefined {
  const entries = Object.entries(filters ?? {}).filter(([, values]) => values.length > 0);
  if (entries.length === 0) return undefined;
  return JSON.stringify(
    Object.fromEntries(entries.map(([key, values]) => [key, Object.fromEntries(values.map((value) => [value, true]))])),
  );
}
