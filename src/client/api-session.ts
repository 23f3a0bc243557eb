import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import * as z from 'zod/mini';
import { EngineError } from '../core/errors.ts';
import { discard, exchange, exchangeJson, hijack, type ExchangeOptions } from './http-exchange.ts';
import { readJsonLines } from './json-lines.ts';
import { NEWEST_API_VERSION } from './newest-api-version.ts';
import type { Transport } from './transport.ts';

/** A daemon that does not tell its version is this old. */
const OLDEST_API_VERSION = '1.24';

/** One daemon's API: the version is agreed at the first request, then every answer is checked against its schema. */
export class ApiSession {
  readonly transport: Transport;
  readonly #headers: Readonly<Record<string, string>>;
  #version: Promise<string> | undefined;

  constructor(transport: Transport, apiVersion: string | undefined, headers: Readonly<Record<string, string>>) {
    this.transport = transport;
    this.#headers = headers;
    if (apiVersion !== undefined) this.#version = Promise.resolve(apiVersion);
  }

  /** The version both sides speak. */
  async apiVersion(): Promise<string> {
    this.#version ??= this.#negotiate();
    try {
      return await this.#version;
    } catch (error) {
      this.#version = undefined;
      throw error;
    }
  }

  async json<S extends z.ZodMiniType>(
    schema: S,
    method: string,
    path: string,
    options: ExchangeOptions = {},
  ): Promise<z.infer<S>> {
    const value = await exchangeJson(this.transport, method, await this.#versioned(path), this.#withHeaders(options));
    return checkAnswer(schema, value, `${method} ${path}`);
  }

  /** The daemon's JSON untouched, members in its order. */
  async raw(path: string, options: ExchangeOptions = {}): Promise<unknown> {
    return exchangeJson(this.transport, 'GET', await this.#versioned(path), this.#withHeaders(options));
  }

  /** For requests whose answer has no body that matters. Resolves with the status. */
  async send(method: string, path: string, options: ExchangeOptions = {}): Promise<number> {
    const response = await exchange(this.transport, method, await this.#versioned(path), this.#withHeaders(options));
    await discard(response);
    return response.statusCode ?? 0;
  }

  /** The answer's body as a stream. */
  async stream(method: string, path: string, options: ExchangeOptions = {}): Promise<IncomingMessage> {
    return exchange(this.transport, method, await this.#versioned(path), this.#withHeaders(options));
  }

  /** A stream of JSON messages, each checked. */
  async messages<S extends z.ZodMiniType>(
    schema: S,
    method: string,
    path: string,
    options: ExchangeOptions = {},
  ): Promise<AsyncGenerator<z.infer<S>, void, undefined>> {
    const response = await this.stream(method, path, options);
    return (async function* () {
      for await (const value of readJsonLines(response)) yield checkAnswer(schema, value, `${method} ${path}`);
    })();
  }

  async hijack(path: string, options: ExchangeOptions = {}): Promise<{ stream: Duplex; contentType: string }> {
    return hijack(this.transport, await this.#versioned(path), this.#withHeaders(options));
  }

  async #versioned(path: string): Promise<string> {
    return `/v${await this.apiVersion()}${path}`;
  }

  #withHeaders(options: ExchangeOptions): ExchangeOptions {
    return { ...options, headers: { ...this.#headers, ...options.headers } };
  }

  async #negotiate(): Promise<string> {
    const response = await exchange(this.transport, 'HEAD', '/_ping', { headers: this.#headers });
    await discard(response);
    const offered = String(response.headers['api-version'] ?? OLDEST_API_VERSION);
    return compareApiVersions(offered, NEWEST_API_VERSION) < 0 ? offered : NEWEST_API_VERSION;
  }
}

/** Negative when `left` is the older. */
export function compareApiVersions(left: string, right: string): number {
  const [leftMajor = 0, leftMinor = 0] = left.split('.').map(Number);
  const [rightMajor = 0, rightMinor = 0] = right.split('.').map(Number);
  return leftMajor - rightMajor || leftMinor - rightMinor;
}

/** A name as one part of a path. Slashes and colons stay: image references hold them. */
export function pathSegment(name: string): string {
  if (name === '') throw new EngineError('invalid-argument', 'a name or id must not be empty');
  return encodeURIComponent(name).replaceAll('%2F', '/').replaceAll('%3A', ':').replaceAll('%40', '@');
}

function checkAnswer<S extends z.ZodMiniType>(schema: S, value: unknown, request: string): z.infer<S> {
  const result = z.safeParse(schema, value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const place = issue === undefined || issue.path.length === 0 ? 'the whole' : issue.path.join('.');
  throw new EngineError(
    'internal',
    `the daemon's answer to ${request} is not what this client understands (${place}: ${issue?.message ?? 'invalid'})`,
  );
}
