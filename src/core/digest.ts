import { createHash } from 'node:crypto';
import { EngineError } from './errors.ts';

declare const digestBrand: unique symbol;

/**
 * `sha256:` and 64 lower-case hex digits. The OCI specification registers sha512 too, but no registry serves it in practice and Docker
 * refuses to name images by it, so one algorithm keeps every store path unambiguous.
 * Source: https://github.com/opencontainers/image-spec/blob/main/descriptor.md#digests
 */
export type Digest = string & { readonly [digestBrand]: true };

const DIGEST = /^sha256:[0-9a-f]{64}$/;

export function isDigest(text: string): text is Digest {
  return DIGEST.test(text);
}

export function parseDigest(text: string, subject = 'digest'): Digest {
  if (isDigest(text)) return text;
  const shown = text.length > 100 ? `${text.slice(0, 100)}…` : text;
  throw new EngineError('invalid-argument', `${subject} "${shown}" is not valid: expected sha256: and 64 hex digits`);
}

export function digestFromHex(hex: string): Digest {
  return parseDigest(`sha256:${hex}`);
}

/** The 64 hex digits: a file name that cannot leave its directory. */
export function hexOfDigest(digest: Digest): string {
  return digest.slice('sha256:'.length);
}

/** The 12 digits Docker shows. */
export function shortHex(digest: Digest): string {
  return hexOfDigest(digest).slice(0, 12);
}

export function digestOfBytes(bytes: Uint8Array | string): Digest {
  return digestFromHex(createHash('sha256').update(bytes).digest('hex'));
}

/**
 * Identity of a stack of layers, lowest first: what Docker lists as `Deleted` beside an image.
 * Source: https://github.com/opencontainers/image-spec/blob/main/config.md#layer-chainid
 */
export function chainIds(diffIds: readonly Digest[]): Digest[] {
  const chain: Digest[] = [];
  for (const diffId of diffIds) {
    const below = chain.at(-1);
    chain.push(below === undefined ? diffId : digestOfBytes(`${below} ${diffId}`));
  }
  return chain;
}
