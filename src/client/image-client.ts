import type { Readable } from 'node:stream';
import * as z from 'zod/mini';
import {
  imageDeletedSchema,
  imageHistorySchema,
  imagesPrunedSchema,
  imageSummarySchema,
  progressSchema,
  type ImageDeleted,
  type ImageHistoryEntry,
  type ImageSummary,
  type ProgressMessage,
} from './answers.ts';
import { pathSegment, type ApiSession } from './api-session.ts';
import { encodeFilters, type CallOptions, type Filters } from './call-options.ts';
import { encodeRegistryAuth, type RegistryAuth } from './registry-auth.ts';

export type ProgressMessages = AsyncGenerator<ProgressMessage, void, undefined>;

/** `/images` of the API. `image` is a reference (`alpine`, `registry:5000/a/b:tag`, `name@sha256:…`) or an id. */
export class ImageClient {
  readonly #session: ApiSession;

  constructor(session: ApiSession) {
    this.#session = session;
  }

  async list(options: CallOptions & { all?: boolean; filters?: Filters } = {}): Promise<ImageSummary[]> {
    const query = { all: options.all, filters: encodeFilters(options.filters) };
    return this.#session.json(z.array(imageSummarySchema), 'GET', '/images/json', { query, signal: options.signal });
  }

  async inspect(
    image: string,
    options: CallOptions & { platform?: string | undefined } = {},
  ): Promise<Record<string, unknown>> {
    const query = { platform: options.platform };
    return this.#session.json(z.record(z.string(), z.unknown()), 'GET', place(image, 'json'), {
      query,
      signal: options.signal,
    });
  }

  async history(image: string, options: CallOptions = {}): Promise<ImageHistoryEntry[]> {
    return this.#session.json(z.array(imageHistorySchema), 'GET', place(image, 'history'), { signal: options.signal });
  }

  /** Fetches from a registry. `tag` may be a digest; undefined pulls every tag. A failure midway arrives as a message with `errorDetail`. */
  async pull(
    repository: string,
    options: CallOptions & {
      tag?: string | undefined;
      platform?: string | undefined;
      auth?: RegistryAuth | undefined;
    } = {},
  ): Promise<ProgressMessages> {
    return this.#session.messages(progressSchema, 'POST', '/images/create', {
      query: { fromImage: repository, tag: options.tag, platform: options.platform },
      headers: encodeRegistryAuth(options.auth),
      signal: options.signal,
    });
  }

  /** Undefined `tag` pushes every tag of the repository. */
  async push(
    repository: string,
    options: CallOptions & {
      tag?: string | undefined;
      platform?: string | undefined;
      auth?: RegistryAuth | undefined;
    } = {},
  ): Promise<ProgressMessages> {
    return this.#session.messages(progressSchema, 'POST', place(repository, 'push'), {
      query: { tag: options.tag, platform: options.platform },
      // The API demands the header even when there is nothing to say.
      headers: encodeRegistryAuth(options.auth ?? {}),
      signal: options.signal,
    });
  }

  async tag(image: string, repository: string, tag: string | undefined, options: CallOptions = {}): Promise<void> {
    await this.#session.send('POST', place(image, 'tag'), { query: { repo: repository, tag }, signal: options.signal });
  }

  async remove(
    image: string,
    options: CallOptions & { force?: boolean; noPrune?: boolean; platforms?: readonly string[] } = {},
  ): Promise<ImageDeleted[]> {
    const query = { force: options.force, noprune: options.noPrune, platforms: options.platforms };
    return this.#session.json(z.array(imageDeletedSchema), 'DELETE', place(image), { query, signal: options.signal });
  }

  /** A tar archive. */
  async save(
    images: readonly string[],
    options: CallOptions & { platform?: string | undefined } = {},
  ): Promise<Readable> {
    return this.#session.stream('GET', '/images/get', {
      query: { names: images, platform: options.platform },
      signal: options.signal,
    });
  }

  async load(
    archive: Readable,
    options: CallOptions & { quiet?: boolean; platform?: string | undefined } = {},
  ): Promise<ProgressMessages> {
    return this.#session.messages(progressSchema, 'POST', '/images/load', {
      query: { quiet: options.quiet, platform: options.platform },
      body: { stream: archive, contentType: 'application/x-tar' },
      signal: options.signal,
    });
  }

  async prune(options: CallOptions & { filters?: Filters } = {}): Promise<z.infer<typeof imagesPrunedSchema>> {
    const query = { filters: encodeFilters(options.filters) };
    return this.#session.json(imagesPrunedSchema, 'POST', '/images/prune', { query, signal: options.signal });
  }
}

function place(image: string, action?: string): string {
  const path = `/images/${pathSegment(image)}`;
  return action === undefined ? path : `${path}/${action}`;
}
