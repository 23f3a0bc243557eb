import { STATUS_CODES } from 'node:http';
import { digestOfBytes, isDigest, type Digest } from '../../core/digest.ts';
import { EngineError } from '../../core/errors.ts';
import { mediaTypes } from '../../wire/oci/manifest.ts';
import type { Authorizer } from './authorizer.ts';
import type { RegistryEndpoint } from './endpoints.ts';
import { refusalFrom } from './registry-errors.ts';
import {
  discard,
  readBounded,
  type IncomingResponse,
  type OutgoingRequest,
  type RegistryMethod,
  type RegistryTransport,
} from './transport.ts';

export interface FetchedManifest {
  readonly bytes: Buffer;
  readonly digest: Digest;
  /** As the registry said, without parameters; empty when it did not say. */
  readonly mediaType: string;
}

export interface SessionOptions {
  readonly transport: RegistryTransport;
  readonly endpoint: RegistryEndpoint;
  /** Repository in the registry: `library/alpine`. */
  readonly path: string;
  readonly authorizer: Authorizer;
  readonly maxManifestBytes: number;
}

type SessionRequest = Omit<OutgoingRequest, 'authorization'>;

const ACCEPTED_MANIFESTS = [
  mediaTypes.ociIndex,
  mediaTypes.ociManifest,
  mediaTypes.dockerList,
  mediaTypes.dockerManifest,
  mediaTypes.dockerManifestV1Signed,
].join(', ');

/** A first answer to the challenge, then one more for a token that expired in between. */
const MAX_AUTH_ATTEMPTS = 2;

/** One repository of one registry, for one pull or push. */
export class RegistrySession {
  readonly endpoint: RegistryEndpoint;
  readonly path: string;
  readonly #transport: RegistryTransport;
  readonly #authorizer: Authorizer;
  readonly #maxManifestBytes: number;

  constructor(options: SessionOptions) {
    this.endpoint = options.endpoint;
    this.path = options.path;
    this.#transport = options.transport;
    this.#authorizer = options.authorizer;
    this.#maxManifestBytes = options.maxManifestBytes;
  }

  url(suffix: string): string {
    return `${this.endpoint.baseUrl}/v2/${this.path}/${suffix}`;
  }

  /** Lets the next token cover another repository too (cross-repository mount). */
  widen(scope: string): void {
    this.#authorizer.widen(scope);
  }

  /** Sends with credentials, answering challenges. Statuses outside `accept` are thrown as the registry's error. */
  async send(outgoing: SessionRequest, accept: readonly number[]): Promise<IncomingResponse> {
    const registryHost = new URL(this.endpoint.baseUrl).host;
    for (let attempt = 0; ; attempt += 1) {
      // An upload address may be on another host; it gets no credentials of this one.
      const isOwn = new URL(outgoing.url).host === registryHost;
      const authorization = isOwn ? this.#authorizer.authorization : undefined;
      const signed = { ...outgoing, authorization };
      if (attempt === MAX_AUTH_ATTEMPTS || !isOwn) return this.#transport.sendExpecting(signed, accept);
      const response = await this.#transport.send(signed);
      if (accept.includes(response.status)) return response;
      const challenge = response.headers.get('www-authenticate');
      if (response.status === 401 && new URL(response.url).host === registryHost) {
        const body = (await readBounded(response, 64 * 1024, 'the error').catch(() => Buffer.alloc(0))).toString(
          'utf8',
        );
        if (await this.#authorizer.answer(challenge, outgoing.signal)) continue;
        throw refusalFrom(outgoing.method, outgoing.url, 401, body, challenge);
      }
      const body = (await readBounded(response, 64 * 1024, 'the error').catch(() => Buffer.alloc(0))).toString('utf8');
      throw refusalFrom(outgoing.method, outgoing.url, response.status, body, challenge);
    }
  }

  /** Asks `/v2/` whether a registry is there at all. Any HTTP answer but "not found" will do: authorization comes later. */
  async ping(signal?: AbortSignal): Promise<void> {
    const url = `${this.endpoint.baseUrl}/v2/`;
    const response = await this.#transport.send({ method: 'GET', url, signal });
    await discard(response);
    if (response.status < 500 && response.status !== 404) return;
    throw refusalFrom('GET', url, response.status, '');
  }

  /** Whether the registry takes the credentials. */
  async logIn(signal?: AbortSignal): Promise<void> {
    const url = `${this.endpoint.baseUrl}/v2/`;
    for (let isAnswered = false; ; isAnswered = true) {
      const response = await this.#transport.send({
        method: 'GET',
        url,
        authorization: this.#authorizer.authorization,
        signal,
      });
      await discard(response);
      if (response.status === 200) return;
      const isChallenge = response.status === 401 && !isAnswered;
      if (isChallenge && (await this.#authorizer.answer(response.headers.get('www-authenticate'), signal))) continue;
      const status = `${response.status} ${STATUS_CODES[response.status] ?? ''}`.trim();
      throw new EngineError('unauthorized', `login attempt to ${url} failed with status: ${status}`);
    }
  }

  /** By tag or digest; the bytes are bounded before they are kept, and match the digest asked for and the one announced. */
  async fetchManifest(reference: string, signal?: AbortSignal): Promise<FetchedManifest> {
    const url = this.url(`manifests/${reference}`);
    const response = await this.send({ method: 'GET', url, headers: { accept: ACCEPTED_MANIFESTS }, signal }, [200]);
    const subject = `the manifest ${reference} of ${this.path}`;
    const bytes = await readBounded(response, this.#maxManifestBytes, subject);
    const digest = digestOfBytes(bytes);
    const announced = response.headers.get('docker-content-digest');
    const expected = isDigest(reference)
      ? reference
      : announced !== undefined && isDigest(announced)
        ? announced
        : digest;
    if (expected !== digest) {
      throw new EngineError(
        'unavailable',
        `manifest verification failed for digest ${expected}: the registry sent ${digest}`,
        {
          details: { expected, digest, url },
        },
      );
    }
    const mediaType = (response.headers.get('content-type') ?? '').split(';', 1)[0]?.trim() ?? '';
    return { bytes, digest, mediaType };
  }

  /** The blob from `offset` on: 206 when the server honours the range, else 200 and all of it. */
  async openBlob(digest: Digest, offset: number, signal?: AbortSignal): Promise<IncomingResponse> {
    const headers: Record<string, string> = offset > 0 ? { range: `bytes=${offset}-` } : {};
    return this.send(
      { method: 'GET', url: this.url(`blobs/${digest}`), headers, signal },
      offset > 0 ? [200, 206, 416] : [200],
    );
  }

  async hasBlob(digest: Digest, signal?: AbortSignal): Promise<boolean> {
    return (await this.#probe('HEAD', this.url(`blobs/${digest}`), signal)) === 200;
  }

  async #probe(method: RegistryMethod, url: string, signal?: AbortSignal): Promise<number> {
    const response = await this.send({ method, url, signal }, [200, 404]);
    await discard(response);
    return response.status;
  }
}
