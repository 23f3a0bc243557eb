import { isDigest, type Digest } from './digest.ts';
import { EngineError } from './errors.ts';

/**
 * A normalised image name. `tag` and `digest` are both absent for a bare repository name.
 * Grammar: https://github.com/distribution/reference/blob/main/reference.go
 */
export interface ImageReference {
  /** Registry host with its port: `docker.io`, `localhost:5000`. */
  readonly domain: string;
  /** Repository in that registry: `library/alpine`. */
  readonly path: string;
  readonly tag?: string;
  readonly digest?: Digest;
}

const DEFAULT_DOMAIN = 'docker.io';
const LEGACY_DOMAIN = 'index.docker.io';
const OFFICIAL = 'library/';
/** Total length of a repository name, domain included. */
const MAX_NAME_LENGTH = 255;
/** Longest text that could be valid: name, tag, digest. Longer input is refused before any pattern runs over it. */
const MAX_REFERENCE_LENGTH = 600;

const HOST_LABEL = '(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])';
const DOMAIN = `(?:${HOST_LABEL}(?:\\.${HOST_LABEL})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?`;
const PATH_COMPONENT = '[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*';
const TAG = '[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}';
const ANY_DIGEST = '[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}';

const REFERENCE = new RegExp(
  `^(?<domain>${DOMAIN})/(?<path>${PATH_COMPONENT}(?:/${PATH_COMPONENT})*)(?::(?<tag>${TAG}))?(?:@(?<digest>${ANY_DIGEST}))?$`,
);
const TAG_ONLY = new RegExp(`^${TAG}$`);
const IDENTIFIER = /^[a-f0-9]{64}$/;

function invalid(reason?: string): EngineError {
  return new EngineError('invalid-argument', reason ?? 'invalid reference format');
}

function splitDomain(text: string): { domain: string; remainder: string } {
  const slash = text.indexOf('/');
  const first = slash < 0 ? '' : text.slice(0, slash);
  const namesHost = first === 'localhost' || /[.:]/.test(first) || first.toLowerCase() !== first;
  const isHost = slash >= 0 && namesHost;
  const domain = !isHost || first === LEGACY_DOMAIN ? DEFAULT_DOMAIN : first;
  const remainder = isHost ? text.slice(slash + 1) : text;
  return domain === DEFAULT_DOMAIN && !remainder.includes('/')
    ? { domain, remainder: OFFICIAL + remainder }
    : { domain, remainder };
}

/** `alpine` → docker.io/library/alpine, without a tag unless one was given. Errors are worded as Docker words them. */
export function parseImageReference(text: string): ImageReference {
  if (text === '' || text.length > MAX_REFERENCE_LENGTH) throw invalid();
  if (IDENTIFIER.test(text)) {
    throw invalid(`invalid repository name (${text}), cannot specify 64-byte hexadecimal strings`);
  }
  const { domain, remainder } = splitDomain(text);
  const remote = remainder.split(':', 1)[0] ?? '';
  if (remote !== remote.toLowerCase()) {
    throw invalid(`invalid reference format: repository name (${remote}) must be lowercase`);
  }
  const match = REFERENCE.exec(`${domain}/${remainder}`)?.groups;
  const path = match?.['path'];
  if (!match || path === undefined) throw invalid();
  if (`${domain}/${path}`.length > MAX_NAME_LENGTH) {
    throw invalid(`repository name must not be more than ${MAX_NAME_LENGTH} characters`);
  }
  const { tag, digest } = match;
  if (digest !== undefined && !isDigest(digest)) {
    throw invalid(digest.startsWith('sha256:') ? 'invalid checksum digest length' : 'unsupported digest algorithm');
  }
  return { domain, path, ...(tag !== undefined && { tag }), ...(digest !== undefined && { digest }) };
}

/** The two parameters of Docker's pull and push: `tag` may be empty, a tag, or a digest. */
export function imageReferenceFromParts(name: string, tag: string | undefined): ImageReference {
  if (tag === undefined || tag === '') return parseImageReference(name);
  const reference = parseImageReference(name);
  if (tag.includes(':')) {
    if (!isDigest(tag)) throw invalid();
    return { domain: reference.domain, path: reference.path, digest: tag };
  }
  if (!TAG_ONLY.test(tag)) throw invalid('invalid tag format');
  return { domain: reference.domain, path: reference.path, tag };
}

export function withDefaultTag(reference: ImageReference): ImageReference {
  return reference.tag === undefined && reference.digest === undefined ? { ...reference, tag: 'latest' } : reference;
}

/** `docker.io/library/alpine`: the key of a repository everywhere in the stores. */
export function repositoryName(reference: Pick<ImageReference, 'domain' | 'path'>): string {
  return `${reference.domain}/${reference.path}`;
}

/** `alpine` for docker.io/library/alpine, `user/x` for docker.io/user/x, else the whole name. */
export function familiarRepository(repository: string): string {
  const official = `${DEFAULT_DOMAIN}/${OFFICIAL}`;
  // docker.io/library/a/b keeps its prefix: without it the name would mean another repository.
  if (repository.startsWith(official) && !repository.slice(official.length).includes('/')) {
    return repository.slice(official.length);
  }
  return repository.startsWith(`${DEFAULT_DOMAIN}/`) ? repository.slice(DEFAULT_DOMAIN.length + 1) : repository;
}

export function familiarName(reference: Pick<ImageReference, 'domain' | 'path'>): string {
  return familiarRepository(repositoryName(reference));
}

/** `alpine:3`, `alpine@sha256:…`, `alpine:3@sha256:…`, as users type and see them. */
export function familiarString(reference: ImageReference): string {
  const tag = reference.tag === undefined ? '' : `:${reference.tag}`;
  const digest = reference.digest === undefined ? '' : `@${reference.digest}`;
  return `${familiarName(reference)}${tag}${digest}`;
}
