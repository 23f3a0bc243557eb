import * as z from 'zod/mini';
import { idAnswerSchema, networkSchema, networksPrunedSchema, type NetworkInspect } from './answers.ts';
import { pathSegment, type ApiSession } from './api-session.ts';
import { encodeFilters, type CallOptions, type Filters } from './call-options.ts';

/** Body of `POST /networks/create`. */
export interface NetworkCreateRequest {
  readonly Name: string;
  readonly Driver?: string;
  readonly Internal?: boolean;
  readonly Attachable?: boolean;
  readonly EnableIPv4?: boolean;
  readonly EnableIPv6?: boolean;
  readonly IPAM?: {
    readonly Driver: string;
    readonly Options?: Readonly<Record<string, string>>;
    readonly Config: readonly {
      readonly Subnet?: string;
      readonly IPRange?: string;
      readonly Gateway?: string;
      readonly AuxiliaryAddresses?: Readonly<Record<string, string>>;
    }[];
  };
  readonly Options?: Readonly<Record<string, string>>;
  readonly Labels?: Readonly<Record<string, string>>;
}

/** `/networks` of the API. */
export class NetworkClient {
  readonly #session: ApiSession;

  constructor(session: ApiSession) {
    this.#session = session;
  }

  async list(options: CallOptions & { filters?: Filters } = {}): Promise<NetworkInspect[]> {
    const query = { filters: encodeFilters(options.filters) };
    return this.#session.json(z.array(networkSchema), 'GET', '/networks', { query, signal: options.signal });
  }

  async inspect(network: string, options: CallOptions & { verbose?: boolean } = {}): Promise<NetworkInspect> {
    const query = { verbose: options.verbose };
    return this.#session.json(networkSchema, 'GET', `/networks/${pathSegment(network)}`, {
      query,
      signal: options.signal,
    });
  }

  /** The daemon's JSON untouched, members in its order. */
  async inspectRaw(network: string, options: CallOptions = {}): Promise<unknown> {
    return this.#session.raw(`/networks/${pathSegment(network)}`, { signal: options.signal });
  }

  async create(request: NetworkCreateRequest, options: CallOptions = {}): Promise<{ Id: string; Warnings: string[] }> {
    return this.#session.json(idAnswerSchema, 'POST', '/networks/create', {
      body: { json: request },
      signal: options.signal,
    });
  }

  async connect(
    network: string,
    container: string,
    endpoint: Record<string, unknown>,
    options: CallOptions = {},
  ): Promise<void> {
    const body = { json: { Container: container, EndpointConfig: endpoint } };
    await this.#session.send('POST', `/networks/${pathSegment(network)}/connect`, { body, signal: options.signal });
  }

  async disconnect(network: string, container: string, options: CallOptions & { force?: boolean } = {}): Promise<void> {
    const body = { json: { Container: container, Force: options.force ?? false } };
    await this.#session.send('POST', `/networks/${pathSegment(network)}/disconnect`, { body, signal: options.signal });
  }

  async remove(network: string, options: CallOptions = {}): Promise<void> {
    await this.#session.send('DELETE', `/networks/${pathSegment(network)}`, { signal: options.signal });
  }

  async prune(options: CallOptions & { filters?: Filters } = {}): Promise<string[]> {
    const query = { filters: encodeFilters(options.filters) };
    return (
      await this.#session.json(networksPrunedSchema, 'POST', '/networks/prune', { query, signal: options.signal })
    ).NetworksDeleted;
  }
}
