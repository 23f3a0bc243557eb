import type { Duplex } from 'node:stream';
import { ApiSession } from './api-session.ts';
import { ContainerClient } from './container-client.ts';
import { ExecClient } from './exec-client.ts';
import { GuestClient } from './guest-client.ts';
import { DEFAULT_HOST, parseHostAddress } from './host-address.ts';
import { explainFailure } from './http-exchange.ts';
import { ImageClient } from './image-client.ts';
import { NetworkClient } from './network-client.ts';
import { SystemClient } from './system-client.ts';
import { createTransport, type TlsOptions, type Transport } from './transport.ts';

export interface ConnectOptions {
  /** `unix://…`, `tcp://…`, `ssh://…`. Default: `BULKHEAD_HOST`, then `DOCKER_HOST`, then the local daemon's socket. */
  readonly host?: string | undefined;
  /** For `tcp://`. */
  readonly tls?: TlsOptions | undefined;
  /** Fixes the API version (`1.43`); default is the newest both sides speak. */
  readonly apiVersion?: string | undefined;
  /** Sent with every request. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
}

/** A daemon, spoken to. Connections open with the first request and are reused; `close` ends the idle ones. */
export class BulkheadClient implements Disposable {
  readonly containers: ContainerClient;
  readonly execs: ExecClient;
  readonly images: ImageClient;
  readonly networks: NetworkClient;
  readonly system: SystemClient;
  readonly guests: GuestClient;
  readonly #session: ApiSession;
  readonly #transport: Transport;

  constructor(transport: Transport, session: ApiSession) {
    this.#transport = transport;
    this.#session = session;
    this.containers = new ContainerClient(session);
    this.execs = new ExecClient(session);
    this.images = new ImageClient(session);
    this.networks = new NetworkClient(session);
    this.system = new SystemClient(session);
    this.guests = new GuestClient(session);
  }

  /** The daemon's address, as a user writes it. */
  get host(): string {
    return this.#transport.description;
  }

  /** The API version in use; asks the daemon if that is not agreed yet. */
  async apiVersion(): Promise<string> {
    return this.#session.apiVersion();
  }

  /** A bare byte stream to the daemon's socket, for relaying. */
  async dial(): Promise<Duplex> {
    try {
      return await this.#transport.connect();
    } catch (error) {
      throw error instanceof Error ? explainFailure(this.#transport, error) : error;
    }
  }

  close(): void {
    this.#transport.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** See `index.ts` for an example. Opens nothing yet; throws `invalid-argument` for an address that cannot be read. */
export function connect(options: ConnectOptions = {}): BulkheadClient {
  const host = options.host ?? (process.env['BULKHEAD_HOST'] || process.env['DOCKER_HOST'] || DEFAULT_HOST);
  const transport = createTransport(parseHostAddress(host, options.tls !== undefined), options.tls);
  return new BulkheadClient(transport, new ApiSession(transport, options.apiVersion, options.headers ?? {}));
}
