import { z } from 'zod';
import { EngineError } from '../core/errors.ts';
import type { Filters } from '../engine/engine.ts';

/** `{"label":{"a=b":true}}`, what Go clients send, or `{"label":["a=b"]}`, what docker-py and dockerode send. */
const filtersSchema = z.record(z.string(), z.union([z.record(z.string(), z.boolean()), z.array(z.string())]));

/** The `filters` parameter. Which keys are known is the affair of the service that is asked. */
export function parseFilters(query: URLSearchParams): Filters {
  const text = query.get('filters');
  if (text === null || text === '') return new Map();
  const parsed = filtersSchema.safeParse(parseJson(text));
  if (!parsed.success) throw invalidFilter();
  return new Map(
    Object.entries(parsed.data).map(([key, values]) => [key, Array.isArray(values) ? values : Object.keys(values)]),
  );
}

/** Refuses keys that are not in `known`, in Docker's words. */
export function requireKnownFilters(filters: Filters, known: readonly string[]): void {
  for (const key of filters.keys()) {
    if (!known.includes(key)) throw new EngineError('invalid-argument', `invalid filter '${key}'`);
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw invalidFilter(error);
  }
}

function invalidFilter(cause?: unknown): EngineError {
  return new EngineError('invalid-argument', 'invalid filter', { cause });
}
