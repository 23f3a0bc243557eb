import {
  diskUsageSchema,
  eventSchema,
  infoSchema,
  loginAnswerSchema,
  versionSchema,
  type DiskUsageAnswer,
  type EventMessage,
  type InfoAnswer,
  type VersionAnswer,
} from './answers.ts';
import type { ApiSession } from './api-session.ts';
import { encodeFilters, type CallOptions, type Filters } from './call-options.ts';
import type { RegistryAuth } from './registry-auth.ts';

/** The daemon itself. */
export class SystemClient {
  readonly #session: ApiSession;

  constructor(session: ApiSession) {
    this.#session = session;
  }

  async version(options: CallOptions = {}): Promise<VersionAnswer> {
    return this.#session.json(versionSchema, 'GET', '/version', { signal: options.signal });
  }

  async info(options: CallOptions = {}): Promise<InfoAnswer> {
    return this.#session.json(infoSchema, 'GET', '/info', { signal: options.signal });
  }

  /** Past events since `since`, then live ones until `until` or the signal. Both are `SECONDS[.NANOSECONDS]` since 1970. */
  async events(
    options: CallOptions & { since?: string | undefined; until?: string | undefined; filters?: Filters } = {},
  ): Promise<AsyncGenerator<EventMessage, void, undefined>> {
    const query = { since: options.since, until: options.until, filters: encodeFilters(options.filters) };
    return this.#session.messages(eventSchema, 'GET', '/events', { query, signal: options.signal });
  }

  async diskUsage(options: CallOptions = {}): Promise<DiskUsageAnswer> {
    return this.#session.json(diskUsageSchema, 'GET', '/system/df', { signal: options.signal });
  }

  /** Checks credentials against a registry. */
  async login(auth: RegistryAuth, options: CallOptions = {}): Promise<{ Status: string; IdentityToken: string }> {
    return this.#session.json(loginAnswerSchema, 'POST', '/auth', { body: { json: auth }, signal: options.signal });
  }
}
