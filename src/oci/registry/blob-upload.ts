import { createReadStream } from 'node:fs';
import { Transform, type Readable, type TransformCallback } from 'node:stream';
import type { Digest } from '../../core/digest.ts';
import { EngineError } from '../../core/errors.ts';
import type { ContentStore } from '../content-store.ts';
import type { RegistrySession } from './session.ts';
import { discard, type IncomingResponse } from './transport.ts';

export interface UploadOptions {
  readonly signal?: AbortSignal | undefined;
  /** Another repository of the same registry that has the blob. */
  readonly mountFrom?: string | undefined;
  readonly onBytes?: (currentBytes: number) => void;
}

export type UploadOutcome =
  { readonly kind: 'exists' | 'uploaded' } | { readonly kind: 'mounted'; readonly from: string };

const PROGRESS_INTERVAL_MS = 100;

/**
 * One blob to a registry: not at all if it has it, by mount if another repository there has it, else in one PUT.
 * Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-blobs
 */
export class BlobUpload {
  readonly #session: RegistrySession;
  readonly #contents: ContentStore;
  readonly #blob: { readonly digest: Digest; readonly sizeBytes: number };

  constructor(session: RegistrySession, contents: ContentStore, blob: { digest: Digest; sizeBytes: number }) {
    this.#session = session;
    this.#contents = contents;
    this.#blob = blob;
  }

  async run(options: UploadOptions): Promise<UploadOutcome> {
    const { digest } = this.#blob;
    const { signal, mountFrom } = options;
    if (await this.#session.hasBlob(digest, signal)) return { kind: 'exists' };
    if (mountFrom !== undefined) this.#session.widen(`repository:${mountFrom}:pull`);
    const started = await this.#start(mountFrom, signal);
    await discard(started);
    if (started.status === 201 && mountFrom !== undefined) return { kind: 'mounted', from: mountFrom };
    await this.#put(this.#uploadUrl(started), options);
    return { kind: 'uploaded' };
  }

  async #start(mountFrom: string | undefined, signal: AbortSignal | undefined): Promise<IncomingResponse> {
    const url = new URL(this.#session.url('blobs/uploads/'));
    if (mountFrom !== undefined) {
      url.searchParams.set('mount', this.#blob.digest);
      url.searchParams.set('from', mountFrom);
    }
    return this.#session.send({ method: 'POST', url: url.href, signal }, [201, 202]);
  }

  #uploadUrl(started: IncomingResponse): URL {
    const location = started.headers.get('location') ?? '';
    if (!URL.canParse(location, started.url))
      throw new EngineError('unavailable', `the registry gave no address to upload ${this.#blob.digest} to`);
    const url = new URL(location, started.url);
    const origin = new URL(started.url);
    const isDowngrade = origin.protocol === 'https:' && url.protocol !== 'https:';
    if (isDowngrade && url.hostname !== origin.hostname) {
      throw new EngineError(
        'unavailable',
        `the registry ${origin.host} wants blobs uploaded to ${url.host} over plain HTTP`,
      );
    }
    // Registries behind a TLS proxy often name themselves with http.
    if (isDowngrade) url.protocol = 'https:';
    url.searchParams.set('digest', this.#blob.digest);
    return url;
  }

  async #put(url: URL, { signal, onBytes }: UploadOptions): Promise<void> {
    const { digest, sizeBytes } = this.#blob;
    const path = this.#contents.path(digest);
    const headers = { 'content-type': 'application/octet-stream', 'content-length': String(sizeBytes) };
    const body = (): Readable => {
      const file = createReadStream(path, { highWaterMark: 256 * 1024 });
      const counted = new CountedStream(onBytes);
      file.once('error', (error) => counted.destroy(error));
      counted.once('close', () => file.destroy());
      return file.pipe(counted);
    };
    const response = await this.#session.send({ method: 'PUT', url: url.href, headers, body, signal }, [201, 204]);
    await discard(response);
  }
}

class CountedStream extends Transform {
  readonly #onBytes: ((currentBytes: number) => void) | undefined;
  #bytes = 0;
  #reportedAt = 0;

  constructor(onBytes: ((currentBytes: number) => void) | undefined) {
    super({ highWaterMark: 256 * 1024 });
    this.#onBytes = onBytes;
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    this.#bytes += chunk.length;
    const now = performance.now();
    if (now - this.#reportedAt >= PROGRESS_INTERVAL_MS) {
      this.#reportedAt = now;
      this.#onBytes?.(this.#bytes);
    }
    done(null, chunk);
  }
}
