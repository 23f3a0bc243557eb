import type { IncomingMessage } from 'node:http';
import type { Readable } from 'node:stream';
import type { z } from 'zod';
import { EngineError } from '../core/errors.ts';
import type { ApiVersion } from './api-version.ts';
import { parseJsonBody, readBody, requireJsonContentType } from './request-body.ts';

/** A request that has found its route. */
export interface ApiRequest {
  readonly method: string;
  readonly parameters: Readonly<Record<string, string>>;
  /** Of the URL, and of a form body where the client sent one. */
  readonly query: URLSearchParams;
  readonly version: ApiVersion;
  readonly incoming: IncomingMessage;
  /** The body. Not `incoming` itself where the connection was upgraded. */
  readonly body: Readable;
  /** Aborts when the client goes before it has its answer. */
  readonly signal: AbortSignal;
}

/** A parameter of the path; the route table guarantees that it is there. */
export function pathParameter(request: ApiRequest, name: string): string {
  const value = request.parameters[name];
  if (value === undefined) throw new EngineError('internal', `route has no parameter ${name}`);
  return value;
}

/** True where the client announced a body, of known length or not. */
export function hasBody(incoming: IncomingMessage): boolean {
  const length = incoming.headers['content-length'];
  return incoming.headers['transfer-encoding'] !== undefined || (length !== undefined && length !== '0');
}

/** The JSON body; undefined where there is none. */
export async function readJson<T>(request: ApiRequest, schema: z.ZodType<T>): Promise<T | undefined> {
  requireJsonContentType(request.incoming.headers['content-type'], hasBody(request.incoming));
  return parseJsonBody(schema, await readBody(request.body));
}

const FORM_TYPE = 'application/x-www-form-urlencoded';

/** Parameters come from the URL or from a form body; the body's come first, as in Go's ParseForm. */
export async function readQuery(incoming: IncomingMessage, search: string): Promise<URLSearchParams> {
  const query = new URLSearchParams(search);
  const contentType = incoming.headers['content-type'] ?? '';
  if (incoming.method === 'GET' || !contentType.toLowerCase().startsWith(FORM_TYPE)) return query;
  const form = await readBody(incoming);
  return new URLSearchParams([...new URLSearchParams(form.toString('utf8')), ...query]);
}
