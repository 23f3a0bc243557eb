import { UsageError } from '../flags/parse-flags.ts';

export interface ImageName {
  /** Where it is fetched from; `docker.io` when none is named. */
  readonly registry: string;
  /** As the user wrote it, without tag and digest. */
  readonly repository: string;
  readonly tag: string | undefined;
  readonly digest: string | undefined;
}

export const DEFAULT_REGISTRY = 'docker.io';

/** Splits `[registry/]path[:tag][@digest]` for the wire; whether it is legal in all its parts the daemon says. */
export function parseImageName(text: string): ImageName {
  const at = text.indexOf('@');
  const named = at === -1 ? text : text.slice(0, at);
  const digest = at === -1 ? undefined : text.slice(at + 1);
  const colon = named.indexOf(':', named.lastIndexOf('/') + 1);
  const repository = colon === -1 ? named : named.slice(0, colon);
  const tag = colon === -1 ? undefined : named.slice(colon + 1);
  if (repository === '' || tag === '' || digest === '') throw new UsageError(`invalid reference format: ${text}`);
  if (/[A-Z]/.test(repository.slice(repository.indexOf('/') + 1)))
    throw new UsageError(`invalid reference format: repository name (${repository}) must be lowercase`);
  return { registry: registryOf(repository), repository, tag, digest };
}

/** The first part is a registry's if it looks like a host: with a dot or a port, or `localhost`. */
function registryOf(repository: string): string {
  const slash = repository.indexOf('/');
  const first = slash === -1 ? '' : repository.slice(0, slash);
  return first.includes('.') || first.includes(':') || first === 'localhost' ? first : DEFAULT_REGISTRY;
}

/** What the daemon shall fetch or send: digest before tag; without either Docker means `latest`. */
export function tagOrDigest(name: ImageName, allTags: boolean): string | undefined {
  return name.digest ?? name.tag ?? (allTags ? undefined : 'latest');
}
