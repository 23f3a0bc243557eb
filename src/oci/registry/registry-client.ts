import { EngineError } from '../../core/errors.ts';
import type { ImageReference } from '../../core/image-reference.ts';
import { Authorizer, type RegistryCredentials } from './authorizer.ts';
import { endpointsOf, type RegistryEndpoint } from './endpoints.ts';
import { registryOfServerAddress } from './login.ts';
import { RegistrySession } from './session.ts';
import { RegistryTransport } from './transport.ts';

export interface RegistryOptions {
  /** Mirrors of docker.io, tried before it. */
  readonly mirrors?: readonly string[];
  readonly insecureRegistries?: readonly string[];
  /** A transfer without a byte for this long is given up (and resumed). Default 30 s. */
  readonly stallTimeoutMs?: number;
  readonly connectTimeoutMs?: number;
  readonly userAgent?: string;
  /** Certificates per registry, laid out as Docker lays them out. Default `/etc/docker/certs.d`. */
  readonly certificatesDirectory?: string;
  /** Proxy for registries that are not on this host: the daemon's `HTTPS_PROXY`, with its `NO_PROXY`. */
  readonly proxy?: string | undefined;
  readonly noProxy?: string | undefined;
  /** Default 4 MiB, the distribution specification's suggestion. */
  readonly maxManifestBytes?: number;
  readonly retry?: Partial<RetryPolicy>;
}

export interface RetryPolicy {
  /** Failures in a row without progress before a download is given up. */
  readonly attempts: number;
  /** Doubled with each failure in a row. */
  readonly firstDelayMs: number;
  readonly maxDelayMs: number;
}

export interface RepositoryAccess {
  readonly reference: Pick<ImageReference, 'domain' | 'path'>;
  readonly credentials?: RegistryCredentials | undefined;
  /** `none`: only to see whether the credentials are good. */
  readonly actions: 'pull' | 'pull,push' | 'none';
  readonly signal?: AbortSignal | undefined;
}

/** Everything that speaks to registries. Holds connections; dispose of it last. */
export class RegistryClient implements AsyncDisposable {
  readonly retry: RetryPolicy;
  readonly #mirrors: readonly string[];
  readonly #insecureRegistries: readonly string[];
  readonly #maxManifestBytes: number;
  readonly #transport: RegistryTransport;

  constructor(options: RegistryOptions = {}) {
    this.#mirrors = options.mirrors ?? [];
    this.#insecureRegistries = options.insecureRegistries ?? [];
    this.#maxManifestBytes = options.maxManifestBytes ?? 4 * 1024 * 1024;
    this.retry = { attempts: 5, firstDelayMs: 500, maxDelayMs: 10_000, ...options.retry };
    this.#transport = new RegistryTransport({
      insecureRegistries: this.#insecureRegistries,
      stallTimeoutMs: options.stallTimeoutMs ?? 30_000,
      connectTimeoutMs: options.connectTimeoutMs ?? 10_000,
      userAgent: options.userAgent ?? 'bulkhead',
      certificatesDirectory: options.certificatesDirectory ?? '/etc/docker/certs.d',
      proxy: options.proxy,
      noProxy: options.noProxy,
    });
    // A bad mirror is a mistake of the operator: said at start, not at the first pull.
    endpointsOf('docker.io', { mirrors: this.#mirrors, insecureRegistries: this.#insecureRegistries });
  }

  /**
   * Runs `use` with the first endpoint that works. The next one is tried when an endpoint cannot be reached, and, for a mirror,
   * whatever went wrong: a mirror may lack what the registry has.
   */
  async withRepository<T>(access: RepositoryAccess, use: (session: RegistrySession) => Promise<T>): Promise<T> {
    const { domain } = access.reference;
    const options = { mirrors: this.#mirrors, insecureRegistries: this.#insecureRegistries };
    const endpoints = endpointsOf(domain, options).filter(({ isMirror }) => !isMirror || access.actions === 'pull');
    let failure: unknown = new EngineError('unavailable', `no endpoint for registry ${domain}`);
    for (const endpoint of endpoints) {
      const session = this.#open(endpoint, access);
      let isReached = false;
      try {
        await session.ping(access.signal);
        isReached = true;
        return await use(session);
      } catch (error) {
        failure = error;
        const isLocal = error instanceof EngineError && error.code === 'resource-exhausted';
        if (access.signal?.aborted || isLocal || (isReached && !endpoint.isMirror)) throw error;
      }
    }
    throw failure;
  }

  /** Checks credentials, as `docker login` asks; `unauthorized` when they are refused. `serverAddress` is what its client sends. */
  async login(serverAddress: string, credentials: RegistryCredentials, signal?: AbortSignal): Promise<void> {
    const reference = { domain: registryOfServerAddress(serverAddress), path: '' };
    await this.withRepository({ reference, credentials, actions: 'none', signal }, (session) => session.logIn(signal));
  }

  #open(endpoint: RegistryEndpoint, access: RepositoryAccess): RegistrySession {
    const authorizer = new Authorizer(
      {
        transport: this.#transport,
        registryUrl: endpoint.baseUrl,
        // The user's password is for the registry named in the image, not for a mirror of it.
        credentials: endpoint.isMirror ? {} : (access.credentials ?? {}),
        insecureRegistries: this.#insecureRegistries,
      },
      access.actions === 'none' ? [] : [`repository:${access.reference.path}:${access.actions}`],
    );
    return new RegistrySession({
      transport: this.#transport,
      endpoint,
      path: access.reference.path,
      authorizer,
      maxManifestBytes: this.#maxManifestBytes,
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#transport[Symbol.asyncDispose]();
  }
}
