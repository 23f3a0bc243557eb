import type { Readable } from 'node:stream';
import type { z } from 'zod';
import { EngineError } from '../core/errors.ts';

/** Largest JSON or form body. A container's configuration of this size is no honest one. */
export const BODY_LIMIT_BYTES = 8 * 1024 * 1024;

/** The whole of a body, refused as soon as it passes the limit. */
export async function readBody(source: Readable, limitBytes = BODY_LIMIT_BYTES): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let lengthBytes = 0;
  for await (const chunk of source as AsyncIterable<Buffer>) {
    lengthBytes += chunk.length;
    if (lengthBytes > limitBytes) throw tooLarge(limitBytes);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, lengthBytes);
}

function tooLarge(limitBytes: number): EngineError {
  return new EngineError('limit-exceeded', `request body is larger than ${limitBytes} bytes`);
}

/** Docker's rule (moby daemon/server/httputils): a body must be called JSON; no body needs no name. */
export function requireJsonContentType(contentType: string | undefined, hasBody: boolean): void {
  if (contentType === undefined || contentType === '') {
    if (!hasBody) return;
    throw new EngineError('invalid-argument', 'malformed Content-Type header (): mime: no media type');
  }
  const mediaType = (contentType.split(';', 1)[0] ?? '').trim().toLowerCase();
  if (mediaType === 'application/json') return;
  throw new EngineError(
    'invalid-argument',
    `unsupported Content-Type header (${contentType}): must be 'application/json'`,
  );
}

/** Undefined for an empty body. Docker's texts: clients and moby's own tests look at them. */
export function parseJsonBody<T>(schema: z.ZodType<T>, body: Buffer): T | undefined {
  if (body.length === 0) return undefined;
  const text = body.toString('utf8');
  if (text.trim() === '') throw invalidJson('got EOF while reading request body');
  const parsed = schema.safeParse(parseJsonText(text));
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw invalidJson(issue === undefined ? 'unknown fault' : `${issue.path.join('.') || 'body'}: ${issue.message}`);
}

function parseJsonText(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (hasContentAfterValue(text)) {
      throw new EngineError('invalid-argument', 'unexpected content after JSON', { cause: error });
    }
    throw invalidJson(error instanceof Error ? error.message : String(error), error);
  }
}

function invalidJson(reason: string, cause?: unknown): EngineError {
  return new EngineError('invalid-argument', `invalid JSON: ${reason}`, { cause });
}

/** True where a text that is no JSON begins with an object or list that is. Only run on bodies that failed to parse. */
function hasContentAfterValue(text: string): boolean {
  const end = endOfFirstValue(text);
  if (end === undefined || text.slice(end).trim() === '') return false;
  try {
    JSON.parse(text.slice(0, end));
    return true;
  } catch {
    return false;
  }
}

/** Where the first object or list closes; undefined where it does not. */
function endOfFirstValue(text: string): number | undefined {
  let depth = 0;
  let inString = false;
  for (let index = 0; index < text.length; index += 1) {
    const character = text[index];
    if (inString) {
      if (character === '\\') index += 1;
      else if (character === '"') inString = false;
    } else if (character === '"') {
      inString = true;
    } else if (character === '{' || character === '[') {
      depth += 1;
    } else if (character === '}' || character === ']') {
      depth -= 1;
      if (depth <= 0) return index + 1;
    }
  }
  return undefined;
}
