import { EngineError } from '../../core/errors.ts';
import { parseJson } from '../../core/json.ts';
import { tokenReplySchema } from '../../wire/oci/registry.ts';
import { parseChallenges, type AuthChallenge } from './challenge.ts';
import { isInsecureHost } from './endpoints.ts';
import { readBounded, type RegistryTransport } from './transport.ts';

/** What Docker's clients send in `X-Registry-Auth`, decoded. All absent: anonymous. */
export interface RegistryCredentials {
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  /** OAuth refresh token from an earlier login. */
  readonly identityToken?: string | undefined;
  /** A ready bearer token. */
  readonly registryToken?: string | undefined;
}

export interface AuthorizerOptions {
  readonly transport: RegistryTransport;
  readonly registryUrl: string;
  readonly credentials: RegistryCredentials;
  readonly insecureRegistries: readonly string[];
}

const MAX_TOKEN_REPLY_BYTES = 256 * 1024;
const CLIENT_ID = 'bulkhead';

/**
 * Answers the challenges of one registry for one user. Kept for one pull or push only, so a token never outlives the request it was
 * asked for. Source: https://distribution.github.io/distribution/spec/auth/token/
 */
export class Authorizer {
  readonly #options: AuthorizerOptions;
  #scopes: readonly string[];
  #authorization: string | undefined;

  constructor(options: AuthorizerOptions, scopes: readonly string[]) {
    this.#options = options;
    this.#scopes = scopes;
    const { registryToken } = options.credentials;
    this.#authorization = registryToken ? `Bearer ${registryToken}` : undefined;
  }

  /** Value for the next request's Authorization header. */
  get authorization(): string | undefined {
    return this.#authorization;
  }

  /** Adds a repository to ask for (the source of a mount); the present token is given up. */
  widen(scope: string): void {
    if (this.#scopes.includes(scope)) return;
    this.#scopes = [...this.#scopes, scope];
    if (this.#authorization?.startsWith('Bearer ') && !this.#options.credentials.registryToken)
      this.#authorization = undefined;
  }

  /** Whether the request is worth sending again. `header` is the WWW-Authenticate of the 401. */
  async answer(header: string | undefined, signal?: AbortSignal): Promise<boolean> {
    const challenges = parseChallenges(header ?? '');
    const bearer = challenges.find(({ scheme }) => scheme === 'bearer');
    if (bearer) {
      if (this.#options.credentials.registryToken) return false;
      this.#authorization = `Bearer ${await this.#fetchToken(bearer, signal)}`;
      return true;
    }
    if (!challenges.some(({ scheme }) => scheme === 'basic')) return false;
    const basic = this.#basicAuthorization();
    if (basic === undefined) {
      throw new EngineError('unauthorized', `Get "${this.#options.registryUrl}/v2/": no basic auth credentials`);
    }
    // Sent already: once more would only count as another wrong guess.
    if (this.#authorization === basic) return false;
    this.#authorization = basic;
    return true;
  }

  #basicAuthorization(): string | undefined {
    const { username, password } = this.#options.credentials;
    if (!username) return undefined;
    return `Basic ${Buffer.from(`${username}:${password ?? ''}`).toString('base64')}`;
  }

  async #fetchToken(challenge: AuthChallenge, signal?: AbortSignal): Promise<string> {
    const realm = this.#realm(challenge);
    const service = challenge.parameters.get('service') ?? '';
    const { identityToken } = this.#options.credentials;
    const response = identityToken
      ? await this.#refresh(realm, service, identityToken, signal)
      : await this.#askToken(realm, service, signal);
    const body = await readBounded(response, MAX_TOKEN_REPLY_BYTES, `the token from ${realm.host}`);
    const reply = tokenReplySchema.safeParse(parseJson(body.toString('utf8')));
    if (!reply.success || reply.data.token === '') {
      throw new EngineError('unauthorized', `the token server ${realm.host} gave no usable token`);
    }
    return reply.data.token;
  }

  #realm(challenge: AuthChallenge): URL {
    const text = challenge.parameters.get('realm') ?? '';
    const realm = URL.canParse(text) ? new URL(text) : undefined;
    const { registryUrl, insecureRegistries } = this.#options;
    if (!realm || !['http:', 'https:'].includes(realm.protocol)) {
      throw new EngineError('unauthorized', `the registry ${registryUrl} names no valid token server`);
    }
    // The password goes there: never unencrypted unless the operator accepts that for the host.
    if (realm.protocol === 'http:' && !isInsecureHost(realm.host, insecureRegistries)) {
      throw new EngineError(
        'unauthorized',
        `the registry ${registryUrl} wants credentials sent to ${realm.origin} over plain HTTP`,
      );
    }
    return realm;
  }

  async #askToken(realm: URL, service: string, signal?: AbortSignal): ReturnType<RegistryTransport['send']> {
    const url = new URL(realm);
    if (service !== '') url.searchParams.set('service', service);
    for (const scope of this.#scopes) url.searchParams.append('scope', scope);
    const { username } = this.#options.credentials;
    if (username) url.searchParams.set('account', username);
    const authorization = this.#basicAuthorization();
    return this.#options.transport.sendExpecting({ method: 'GET', url: url.href, authorization, signal }, [200]);
  }

  async #refresh(
    realm: URL,
    service: string,
    token: string,
    signal?: AbortSignal,
  ): ReturnType<RegistryTransport['send']> {
    const form = new URLSearchParams({
      grant_type: 'refresh_token',
      refresh_token: token,
      service,
      client_id: CLIENT_ID,
      scope: this.#scopes.join(' '),
    });
    const headers = { 'content-type': 'application/x-www-form-urlencoded' };
    // A redirected form would carry the refresh token elsewhere.
    const { transport } = this.#options;
    return transport.sendExpecting(
      { method: 'POST', url: realm.href, headers, body: () => form.toString(), signal },
      [200],
    );
  }
}
