import type { Readable } from 'node:stream';
import { getCACertificates } from 'node:tls';
import { Agent, EnvHttpProxyAgent, request, type Dispatcher } from 'undici';
import { EngineError } from '../../core/errors.ts';
import { isInsecureHost } from './endpoints.ts';
import { readHostCertificates } from './host-certificates.ts';
import { connectionFailure, failureCode, refusalFrom } from './registry-errors.ts';

export type RegistryMethod = 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE' | 'PATCH';

export interface TransportOptions {
  readonly insecureRegistries: readonly string[];
  /** A transfer is given up after this long without a byte. */
  readonly stallTimeoutMs: number;
  readonly connectTimeoutMs: number;
  readonly userAgent: string;
  /** Docker's `certs.d`: one directory per registry. */
  readonly certificatesDirectory: string;
  /** URL of an HTTP proxy for registries that are not on this host. */
  readonly proxy?: string | undefined;
  /** Hosts to reach without it, in the form of `NO_PROXY`. */
  readonly noProxy?: string | undefined;
}

export interface OutgoingRequest {
  readonly method: RegistryMethod;
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent to `url`'s own host only, never along a redirect to another. */
  readonly authorization?: string | undefined;
  /** Called once for each time the body has to be sent. */
  readonly body?: (() => string | Readable | Buffer) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface IncomingResponse {
  readonly status: number;
  readonly headers: ReadonlyMap<string, string>;
  readonly body: Dispatcher.ResponseData['body'];
  /** After redirects. */
  readonly url: string;
}

const MAX_REDIRECTS = 8;
const UPLOAD_ANSWER_FACTOR = 20;
const MAX_ERROR_BODY_BYTES = 64 * 1024;
const REDIRECTS = new Set([301, 302, 303, 307, 308]);

/** HTTP to registries: redirects followed by hand, so that credentials stay with the host they were meant for. */
export class RegistryTransport implements AsyncDisposable {
  readonly #options: TransportOptions;
  /** By what they trust: `insecure`, `system`, or a host with certificates of its own. */
  readonly #agents = new Map<string, Dispatcher>();

  constructor(options: TransportOptions) {
    this.#options = options;
  }

  /** Made at first use: reading the host's certificates takes tens of milliseconds that loopback registries need not pay. */
  #agent(url: URL): Dispatcher {
    const own =
      url.protocol === 'https:' ? readHostCertificates(this.#options.certificatesDirectory, url.host) : undefined;
    const isInsecure = isInsecureHost(url.host, this.#options.insecureRegistries);
    const key = `${isInsecure ? 'insecure' : 'system'} ${own?.fingerprint ?? ''}`;
    const known = this.#agents.get(key);
    if (known) return known;
    const system = isInsecure ? [] : [...getCACertificates('default'), ...getCACertificates('system')];
    const { stallTimeoutMs, connectTimeoutMs, proxy } = this.#options;
    const tls = {
      ...(isInsecure ? { rejectUnauthorized: false } : { ca: [...new Set([...system, ...(own?.authorities ?? [])])] }),
      ...own?.client,
    };
    const options = {
      bodyTimeout: stallTimeoutMs,
      headersTimeout: stallTimeoutMs,
      connect: { timeout: connectTimeoutMs, ...tls },
      maxHeaderSize: 64 * 1024,
    };
    // Registries on this host and those called insecure are near: a proxy is for the others.
    const agent =
      isInsecure || proxy === undefined
        ? new Agent(options)
        : new EnvHttpProxyAgent({
            ...options,
            httpProxy: proxy,
            httpsProxy: proxy,
            requestTls: tls,
            ...noProxyOption(this.#options),
          });
    this.#agents.set(key, agent);
    return agent;
  }

  /** The response of the last hop, whatever its status. The caller reads or discards the body. */
  async send(outgoing: OutgoingRequest): Promise<IncomingResponse> {
    const origin = new URL(outgoing.url);
    let url = origin;
    for (let hop = 0; hop <= MAX_REDIRECTS; hop += 1) {
      const response = await this.#sendOnce(
        outgoing,
        url,
        url.host === origin.host && url.protocol === origin.protocol,
      );
      const location = response.headers.get('location');
      // What has a body (an upload, a refresh token) is not sent on: it was meant for the host it was given to.
      if (!REDIRECTS.has(response.status) || location === undefined || outgoing.body) return response;
      await discard(response);
      url = this.#redirectTarget(url, location);
    }
    throw new EngineError('unavailable', `the registry ${origin.host} redirected more than ${MAX_REDIRECTS} times`);
  }

  /** As `send`, with any status but those in `accept` turned into the registry's own error. */
  async sendExpecting(outgoing: OutgoingRequest, accept: readonly number[]): Promise<IncomingResponse> {
    const response = await this.send(outgoing);
    if (accept.includes(response.status)) return response;
    const body = await readErrorBody(response);
    throw refusalFrom(outgoing.method, outgoing.url, response.status, body, response.headers.get('www-authenticate'));
  }

  #redirectTarget(from: URL, location: string): URL {
    const target = URL.canParse(location, from.href) ? new URL(location, from) : undefined;
    if (!target || !['http:', 'https:'].includes(target.protocol)) {
      throw new EngineError(
        'unavailable',
        `the registry ${from.host} redirected to an address that is not http or https`,
      );
    }
    if (target.protocol === 'http:' && !isInsecureHost(target.host, this.#options.insecureRegistries)) {
      throw new EngineError(
        'unavailable',
        `the registry ${from.host} redirected to plain HTTP on ${target.host}; allow it with --insecure-registry ${target.host}`,
      );
    }
    return target;
  }

  async #sendOnce(outgoing: OutgoingRequest, url: URL, isOrigin: boolean): Promise<IncomingResponse> {
    outgoing.signal?.throwIfAborted();
    const authorization = isOrigin ? outgoing.authorization : undefined;
    try {
      const response = await request(url, {
        method: outgoing.method,
        dispatcher: this.#agent(url),
        headers: {
          'user-agent': this.#options.userAgent,
          // Blobs are named by the digest of their bytes: a transfer encoding would change them.
          'accept-encoding': 'identity',
          ...outgoing.headers,
          ...(authorization !== undefined && { authorization }),
        },
        // A registry answers an upload only when it has stored and checked all of it.
        ...(outgoing.body && {
          body: outgoing.body(),
          headersTimeout: this.#options.stallTimeoutMs * UPLOAD_ANSWER_FACTOR,
        }),
        ...(outgoing.signal && { signal: outgoing.signal }),
      });
      const headers = new Map<string, string>();
      for (const [name, value] of Object.entries(response.headers)) {
        if (value !== undefined) headers.set(name.toLowerCase(), Array.isArray(value) ? value.join(', ') : value);
      }
      return { status: response.statusCode, headers, body: response.body, url: url.href };
    } catch (error) {
      outgoing.signal?.throwIfAborted();
      if (error instanceof EngineError) throw error;
      throw connectionFailure(outgoing.method, url.href, error);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#agents.values()].map((agent) => agent.destroy()));
  }
}

function noProxyOption({ noProxy }: TransportOptions): { noProxy?: string } {
  return noProxy === undefined ? {} : { noProxy };
}

/** Lets the connection be reused where that is cheap and drops it where it is not. */
export async function discard(response: IncomingResponse): Promise<void> {
  await response.body.dump({ limit: MAX_ERROR_BODY_BYTES }).catch(() => undefined);
}

/** The whole body, refused by its declared length before a byte is kept, and by its true length as it comes. */
export async function readBounded(response: IncomingResponse, maxBytes: number, subject: string): Promise<Buffer> {
  const tooLarge = (): EngineError =>
    new EngineError('limit-exceeded', `${subject} is larger than the ${maxBytes} bytes allowed; it is refused`, {
      details: { maxBytes },
    });
  const declared = Number(response.headers.get('content-length') ?? '0');
  if (declared > maxBytes) {
    response.body.destroy();
    throw tooLarge();
  }
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of response.body as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes > maxBytes) throw tooLarge();
      chunks.push(chunk);
    }
  } catch (error) {
    response.body.destroy();
    if (error instanceof EngineError || failureCode(error) === '') throw error;
    throw connectionFailure('GET', response.url, error);
  }
  return Buffer.concat(chunks);
}

async function readErrorBody(response: IncomingResponse): Promise<string> {
  try {
    return (await readBounded(response, MAX_ERROR_BODY_BYTES, 'the error')).toString('utf8');
  } catch {
    return '';
  }
}
