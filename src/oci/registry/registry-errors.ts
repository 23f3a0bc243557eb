import { EngineError, systemErrorCode, type ErrorCode } from '../../core/errors.ts';
import { parseJson } from '../../core/json.ts';
import { parseChallenges } from './challenge.ts';
import { registryDetailsSchema, registryErrorsSchema } from '../../wire/oci/registry.ts';

/** What a registry said no with: `MANIFEST_UNKNOWN`, `DENIED` … kept as data so that nobody matches on text. */
export class RegistryRefusal extends EngineError {
  readonly status: number;
  /** Code of the distribution specification, upper case; `UNKNOWN` when the body gave none. */
  readonly refusal: string;

  constructor(code: ErrorCode, message: string, status: number, refusal: string) {
    super(code, message, { details: { status, refusal } });
    this.status = status;
    this.refusal = refusal;
  }
}

const CODE_BY_STATUS: Readonly<Record<number, ErrorCode>> = {
  400: 'invalid-argument',
  401: 'unauthorized',
  403: 'forbidden',
  404: 'not-found',
  429: 'unavailable',
};

/** Docker's wording of a registry error: the code in lower case, a colon, the registry's message. */
export function refusalFrom(
  method: string,
  url: string,
  status: number,
  body: string,
  challenge = '',
): RegistryRefusal {
  const code = CODE_BY_STATUS[status] ?? (status >= 500 ? 'unavailable' : 'internal');
  const oauth = status === 401 ? oauthRefusal(challenge) : undefined;
  if (oauth) return oauth;
  const json = parseJson(body);
  const errors = registryErrorsSchema.safeParse(json);
  const first = errors.success ? errors.data.errors[0] : undefined;
  if (first) {
    const name = first.code.toUpperCase();
    const words = name.toLowerCase().replaceAll('_', ' ');
    return new RegistryRefusal(code, first.message === '' ? words : `${words}: ${first.message}`, status, name);
  }
  const details = registryDetailsSchema.safeParse(json);
  const text = details.success ? details.data : body.replaceAll(/\s+/g, ' ').trim().slice(0, 200);
  if (status === 401 || status === 403) {
    const word = status === 401 ? 'unauthorized' : 'denied';
    return new RegistryRefusal(code, `${word}: ${text || 'authentication required'}`, status, word.toUpperCase());
  }
  if (status === 429)
    return new RegistryRefusal(code, `toomanyrequests: ${text || 'too many requests'}`, status, 'TOOMANYREQUESTS');
  const shown = text === '' ? '' : `: ${text}`;
  return new RegistryRefusal(
    code,
    `${method} "${withoutQuery(url)}": unexpected status ${status} from the registry${shown}`,
    status,
    'UNKNOWN',
  );
}

/** The header says more than the body, which token registries leave generic. Source: RFC 6750 section 3.1. */
function oauthRefusal(header: string): RegistryRefusal | undefined {
  const bearer = parseChallenges(header).find(({ scheme }) => scheme === 'bearer')?.parameters;
  const description = bearer?.get('error_description');
  switch (bearer?.get('error')) {
    case 'insufficient_scope':
      return new RegistryRefusal(
        'forbidden',
        `denied: ${description ?? 'requested access to the resource is denied'}`,
        401,
        'DENIED',
      );
    case 'invalid_token':
      return new RegistryRefusal(
        'unauthorized',
        `unauthorized: ${description ?? 'authentication required'}`,
        401,
        'UNAUTHORIZED',
      );
    default:
      return undefined;
  }
}

/** Upload and CDN addresses carry signatures in the query; they have no place in an error or a log. */
export function withoutQuery(url: string): string {
  return url.split('?', 1)[0] ?? url;
}

/**
 * A failed connection in the words Docker users search for. A server that answers plain HTTP to TLS is by far the most frequent
 * mistake, so it gets Go's exact sentence.
 */
export function connectionFailure(method: string, url: string, thrown: unknown): EngineError {
  const { protocol, hostname, port } = new URL(url);
  const address = `${hostname}:${port || (protocol === 'https:' ? '443' : '80')}`;
  const code = failureCode(thrown);
  const go = method.charAt(0) + method.slice(1).toLowerCase();
  const reason = describeFailure(code, hostname, address, thrown);
  return new EngineError('unavailable', `${go} "${withoutQuery(url)}": ${reason}`, {
    details: { address, systemCode: code },
    cause: thrown,
  });
}

/** Code of the failure or of what it wraps: undici and happy-eyeballs put the system's error one or two levels down. */
export function failureCode(thrown: unknown): string {
  for (let level: unknown = thrown, depth = 0; depth < 4; depth += 1) {
    const code = systemErrorCode(level);
    if (code !== '') return code;
    if (!(level instanceof Error)) break;
    level = level instanceof AggregateError ? level.errors[0] : level.cause;
  }
  return '';
}

const SELF_SIGNED = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
]);

function describeFailure(code: string, host: string, address: string, thrown: unknown): string {
  switch (code) {
    case 'ECONNREFUSED':
      return `dial tcp ${address}: connect: connection refused`;
    case 'ENOTFOUND':
      return `dial tcp: lookup ${host}: no such host`;
    case 'EAI_AGAIN':
      return `dial tcp: lookup ${host}: temporary failure in name resolution`;
    case 'EHOSTUNREACH':
      return `dial tcp ${address}: connect: no route to host`;
    case 'ENETUNREACH':
      return `dial tcp ${address}: connect: network is unreachable`;
    case 'ETIMEDOUT':
    case 'UND_ERR_CONNECT_TIMEOUT':
      return `dial tcp ${address}: i/o timeout`;
    case 'UND_ERR_HEADERS_TIMEOUT':
      return `no answer from ${address} in time`;
    case 'UND_ERR_BODY_TIMEOUT':
      return `transfer from ${address} stalled`;
    case 'EPROTO':
    case 'ERR_SSL_WRONG_VERSION_NUMBER':
    case 'ERR_SSL_PACKET_LENGTH_TOO_LONG':
      return 'http: server gave HTTP response to HTTPS client';
    case 'CERT_HAS_EXPIRED':
      return 'tls: failed to verify certificate: x509: certificate has expired or is not yet valid';
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return `tls: failed to verify certificate: x509: certificate is not valid for ${host}`;
    default: {
      if (SELF_SIGNED.has(code))
        return 'tls: failed to verify certificate: x509: certificate signed by unknown authority';
      const text = thrown instanceof Error ? thrown.message : String(thrown);
      return code === '' ? text : `${text} (${code})`;
    }
  }
}
