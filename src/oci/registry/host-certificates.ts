import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { digestOfBytes } from '../../core/digest.ts';
import { EngineError, systemErrorCode } from '../../core/errors.ts';

/** What an operator laid down for one registry. */
export interface HostCertificates {
  /** PEM, trusted for this host beside the system's. */
  readonly authorities: readonly string[];
  readonly client?: { readonly cert: string; readonly key: string };
  /** Changes with the content: a renewed certificate is used without a restart. */
  readonly fingerprint: string;
}

/** A registry's name is part of an image name, so it comes from strangers: nothing but a host and port may become a path. */
const SAFE_HOST = /^[A-Za-z0-9[\]:.-]+$/;

/**
 * `DIRECTORY/HOST[:PORT]/`: `*.crt` are authorities, `NAME.cert` with `NAME.key` is what the registry gets to see.
 * Source: https://docs.docker.com/engine/security/certificates/
 */
export function readHostCertificates(directory: string, host: string): HostCertificates | undefined {
  if (!SAFE_HOST.test(host) || host.startsWith('.')) return undefined;
  const place = join(directory, host);
  const names = listNames(place);
  if (names.length === 0) return undefined;
  const read = (name: string): string => readFileSync(join(place, name), 'utf8');
  const authorities = names.filter((name) => name.endsWith('.crt')).map(read);
  const certName = names.find((name) => name.endsWith('.cert'));
  const keyName = certName?.replace(/\.cert$/, '.key');
  if (certName !== undefined && !names.includes(keyName ?? '')) {
    throw new EngineError('invalid-argument', `missing key ${keyName} for client certificate ${certName} in ${place}`);
  }
  const client =
    certName !== undefined && keyName !== undefined ? { cert: read(certName), key: read(keyName) } : undefined;
  const fingerprint = digestOfBytes(JSON.stringify([authorities, client]));
  return { authorities, fingerprint, ...(client && { client }) };
}

function listNames(place: string): string[] {
  try {
    return readdirSync(place).sort();
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(systemErrorCode(error))) return [];
    throw new EngineError('unavailable', `cannot read the certificates in ${place}`, { cause: error });
  }
}
