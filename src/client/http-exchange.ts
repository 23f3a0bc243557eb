import type { IncomingMessage } from 'node:http';
import type { Duplex, Readable } from 'node:stream';
import { EngineError, systemErrorCode } from '../core/errors.ts';
import { ApiError } from './api-error.ts';
import type { Transport } from './transport.ts';

export type QueryValue = string | number | boolean | readonly string[] | undefined;

export interface ExchangeOptions {
  readonly query?: Readonly<Record<string, QueryValue>>;
  readonly headers?: Readonly<Record<string, string>>;
  /** A value is sent as JSON, a stream as it is (a tar archive). */
  readonly body?: { readonly json: unknown } | { readonly stream: Readable; readonly contentType: string };
  readonly signal?: AbortSignal | undefined;
}

/** Error bodies are read up to here, bytes. */
const MAX_ERROR_BYTES = 64 * 1024;
/** Whole JSON answers are read up to here, bytes. */
const MAX_JSON_BYTES = 256 * 1024 * 1024;

/** Sends one request; resolves with the answer once its head is there. Statuses from 400 on are thrown as `ApiError`. */
export async function exchange(
  transport: Transport,
  method: string,
  path: string,
  options: ExchangeOptions = {},
): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const request = transport.open(describeTarget(method, path, options), false);
  request.once('response', resolve);
  request.once('error', (error) => reject(explainFailure(transport, error)));
  const body = options.body;
  if (body === undefined) request.end();
  else if ('json' in body) request.end(JSON.stringify(body.json));
  else {
    body.stream.once('error', (error) => request.destroy(error));
    body.stream.pipe(request);
  }
  const response = await promise;
  request.on('error', (error) => response.destroy(error));
  if ((response.statusCode ?? 500) >= 400) throw await readApiError(response);
  return response;
}

export async function exchangeJson(
  transport: Transport,
  method: string,
  path: string,
  options: ExchangeOptions = {},
): Promise<unknown> {
  const text = await readText(await exchange(transport, method, path, options), MAX_JSON_BYTES);
  if (text.trim() === '') return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new EngineError('internal', `the daemon's answer to ${method} ${path} is not JSON`, { cause: error });
  }
}

/** Turns the connection of a request into a raw byte stream both ways; its end is half-close. */
export async function hijack(
  transport: Transport,
  path: string,
  options: ExchangeOptions = {},
): Promise<{ stream: Duplex; contentType: string }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ stream: Duplex; contentType: string }>();
  const { signal } = options;
  const target = describeTarget('POST', path, { ...options, signal: undefined });
  target.headers['connection'] = 'Upgrade';
  target.headers['upgrade'] = 'tcp';
  const request = transport.open(target, true);
  const abort = (): void => {
    request.destroy(new DOMException('This operation was aborted', 'AbortError'));
  };
  signal?.addEventListener('abort', abort, { once: true });
  request.once('upgrade', (response, socket, head) => {
    signal?.removeEventListener('abort', abort);
    signal?.addEventListener('abort', () => socket.destroy(), { once: true });
    if (head.length > 0) socket.unshift(head);
    resolve({ stream: socket, contentType: response.headers['content-type'] ?? '' });
  });
  request.once('response', (response) => {
    if ((response.statusCode ?? 500) >= 400) {
      readApiError(response).then(reject, reject);
      return;
    }
    response.destroy();
    reject(
      new EngineError(
        'internal',
        `unable to upgrade POST ${path} to a raw stream: the daemon answered ${response.statusCode}`,
      ),
    );
  });
  request.once('error', (error) => reject(explainFailure(transport, error)));
  if (signal?.aborted === true) abort();
  if (options.body !== undefined && 'json' in options.body) request.end(JSON.stringify(options.body.json));
  else request.end();
  return promise;
}

/** Reads and drops a body, so that its connection can serve again. */
export async function discard(response: IncomingMessage): Promise<void> {
  for await (const chunk of response) void chunk;
}

function describeTarget(method: string, path: string, options: ExchangeOptions) {
  const headers: Record<string, string> = { host: 'bulkhead', 'user-agent': 'bulkhead', ...options.headers };
  const body = options.body;
  if (body !== undefined && 'json' in body) {
    headers['content-type'] = 'application/json';
    headers['content-length'] = String(Buffer.byteLength(JSON.stringify(body.json)));
  } else if (body !== undefined) headers['content-type'] = body.contentType;
  return { method, path: path + formatQuery(options.query), headers, signal: options.signal };
}

function formatQuery(query: Readonly<Record<string, QueryValue>> = {}): string {
  const parameters = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) {
    if (value === undefined) continue;
    if (typeof value === 'boolean') parameters.append(key, value ? '1' : '0');
    else if (typeof value === 'object') for (const item of value) parameters.append(key, item);
    else parameters.append(key, String(value));
  }
  const text = parameters.toString();
  return text === '' ? '' : `?${text}`;
}

async function readText(response: IncomingMessage, limitBytes: number): Promise<string> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    sizeBytes += chunk.length;
    if (sizeBytes > limitBytes) {
      response.destroy();
      throw new EngineError('limit-exceeded', `the daemon's answer is larger than ${limitBytes} bytes`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

async function readApiError(response: IncomingMessage): Promise<ApiError> {
  const status = response.statusCode ?? 500;
  const text = await readText(response, MAX_ERROR_BYTES);
  return new ApiError(status, messageOf(text) || `request returned ${status} ${response.statusMessage ?? ''}`.trim());
}

function messageOf(text: string): string {
  try {
    const body: unknown = JSON.parse(text);
    if (typeof body === 'object' && body !== null && 'message' in body && typeof body.message === 'string')
      return body.message.trim();
  } catch {
    // Not JSON: an intermediary's page or plain text, shown as it is.
  }
  return text.trim();
}

/** The network's failure in the user's terms: which address, and what to do. */
export function explainFailure(transport: Pick<Transport, 'description'>, error: Error): Error {
  if (error instanceof EngineError || error instanceof ApiError || error.name === 'AbortError') return error;
  const place = transport.description;
  const cause = { cause: error };
  switch (systemErrorCode(error)) {
    case 'ENOENT':
    case 'ECONNREFUSED':
      return new EngineError(
        'unavailable',
        `cannot connect to the daemon at ${place}: is the daemon running? start it with: bulkhead daemon`,
        cause,
      );
    case 'EACCES':
    case 'EPERM':
      return new EngineError(
        'unavailable',
        `permission denied while connecting to the daemon at ${place}: run as root, or as a member of the group that owns the socket`,
        cause,
      );
    case 'ECONNRESET':
    case 'EPIPE':
      return new EngineError(
        'unavailable',
        `the daemon at ${place} closed the connection (${error.message}); see its log`,
        cause,
      );
    default:
      return new EngineError('unavailable', `error during connect to ${place}: ${error.message}`, cause);
  }
}
