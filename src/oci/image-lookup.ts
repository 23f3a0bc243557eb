import { isDigest, type Digest } from '../core/digest.ts';
import { EngineError } from '../core/errors.ts';
import {
  familiarString,
  parseImageReference,
  repositoryName,
  withDefaultTag,
  type ImageReference,
} from '../core/image-reference.ts';
import type { ImageRecord, ImageRecords } from './image-records.ts';

const ID_PREFIX = /^(?:sha256:)?([0-9a-f]{1,64})$/;

/** Full ID, repo[:tag], repo@digest, or the start of an ID, in Docker's order: a name wins over a short ID. */
export function resolveImage(records: ImageRecords, nameOrId: string): ImageRecord {
  const id = findImageId(records, nameOrId);
  const record = id && records.get(id);
  if (!record) throw noSuchImage(nameOrId);
  return record;
}

/** Whether the text names the image by its ID, so that removing it means the image and not one of its names. */
export function isIdOf(id: Digest, nameOrId: string): boolean {
  const prefix = ID_PREFIX.exec(nameOrId)?.[1];
  return prefix !== undefined && id.startsWith(`sha256:${prefix}`);
}

function findImageId(records: ImageRecords, nameOrId: string): Digest | undefined {
  const fullId = /^[0-9a-f]{64}$/.test(nameOrId) ? `sha256:${nameOrId}` : nameOrId;
  if (isDigest(fullId)) return records.isVisible(fullId) ? fullId : undefined;
  return findNamed(records, parseImageReference(nameOrId)) ?? findByPrefix(records, nameOrId);
}

export function findNamed(records: ImageRecords, reference: ImageReference): Digest | undefined {
  const repository = repositoryName(reference);
  if (reference.digest !== undefined) return records.imageOfRepoDigest({ repository, digest: reference.digest });
  return records.imageOfTag({ repository, tag: reference.tag ?? 'latest' });
}

/** An ambiguous start names nothing, as in Docker. */
function findByPrefix(records: ImageRecords, text: string): Digest | undefined {
  const prefix = ID_PREFIX.exec(text)?.[1];
  if (prefix === undefined) return undefined;
  const ids = records.idsByPrefix(prefix);
  return ids.length === 1 ? ids[0] : undefined;
}

function noSuchImage(nameOrId: string): EngineError {
  const isId = isDigest(nameOrId) || /^[0-9a-f]{64}$/.test(nameOrId);
  const shown = isId ? nameOrId : familiarString(withDefaultTag(parseImageReference(nameOrId)));
  return new EngineError('not-found', `No such image: ${shown}`);
}
