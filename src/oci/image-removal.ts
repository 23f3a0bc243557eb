import { chainIds, shortHex, type Digest } from '../core/digest.ts';
import { EngineError } from '../core/errors.ts';
import { familiarRepository, parseImageReference, repositoryName } from '../core/image-reference.ts';
import { isIdOf, resolveImage } from './image-lookup.ts';
import type { ImageRecord, RepoDigestName, TagName } from './image-records.ts';
import { collectUnreferenced, type StoreContext } from './store-context.ts';

/** A container that was made from an image. */
export interface ImageUser {
  readonly containerId: string;
  readonly isRunning: boolean;
}

export type ImageUsers = (imageId: Digest) => readonly ImageUser[];

export interface RemoveOptions {
  readonly force?: boolean;
  /** Remove parents that are left without a name, too. Default true. */
  readonly prune?: boolean;
  readonly isUsedBy: ImageUsers;
}

export type RemovedEntry = { readonly untagged: string } | { readonly deleted: string };

/** Images whose files are due for collection once the transaction has happened. */
type Deleted = ImageRecord[];

/**
 * Docker's rules: a name is taken away first, the image goes with its last name, containers keep what they use.
 * Source: moby v28.2.2 daemon/images/image_delete.go
 */
export async function removeImage(
  context: StoreContext,
  nameOrId: string,
  options: RemoveOptions,
): Promise<RemovedEntry[]> {
  const image = resolveImage(context.records, nameOrId);
  const entries: RemovedEntry[] = [];
  const deleted: Deleted = [];
  context.records.transaction(() => {
    const removal = new Removal(context, options, entries, deleted);
    if (isIdOf(image.id, nameOrId)) removal.removeById(image);
    else removal.removeByName(image, nameOrId);
  });
  const blobs = deleted.flatMap(({ id, manifestDigest, layers }) => [
    id,
    manifestDigest,
    ...layers.map(({ digest }) => digest),
  ]);
  const named = deleted.flatMap(({ repoDigests }) => repoDigests.map((name) => parseImageReference(name).digest));
  const diffIds = deleted.flatMap(({ layers }) => layers.map(({ diffId }) => diffId));
  await collectUnreferenced(context, [...blobs, ...named.filter((digest) => digest !== undefined)], diffIds);
  return entries;
}

class Removal {
  readonly #context: StoreContext;
  readonly #options: RemoveOptions;
  readonly #entries: RemovedEntry[];
  readonly #deleted: Deleted;

  constructor(context: StoreContext, options: RemoveOptions, entries: RemovedEntry[], deleted: Deleted) {
    this.#context = context;
    this.#options = options;
    this.#entries = entries;
    this.#deleted = deleted;
  }

  removeByName(image: ImageRecord, nameOrId: string): void {
    const { records } = this.#context;
    const { isUsedBy, force = false } = this.#options;
    const user = isUsedBy(image.id)[0];
    if (!force && user && this.#hasSingleName(image.id)) {
      throw new EngineError(
        'conflict',
        `conflict: unable to remove repository reference "${nameOrId}" (must force) - container ${user.containerId.slice(0, 12)} is using its referenced image ${shortHex(image.id)}`,
      );
    }
    const reference = parseImageReference(nameOrId);
    const repository = repositoryName(reference);
    if (reference.digest === undefined) this.#untag({ repository, tag: reference.tag ?? 'latest' });
    else this.#dropRepoDigest({ repository, digest: reference.digest });
    // A repository without a tag left is known by digest only; those names go with the last tag.
    const hasTag = records.tagsOf(image.id).some((tag) => tag.repository === repository);
    if (reference.digest === undefined && !hasTag) {
      for (const name of records.repoDigestsOf(image.id))
        if (name.repository === repository) this.#dropRepoDigest(name);
    }
    if (records.tagsOf(image.id).length + records.repoDigestsOf(image.id).length > 0) return;
    this.#delete(image, { force, isQuiet: true });
  }

  removeById(image: ImageRecord): void {
    const { records } = this.#context;
    const { force = false } = this.#options;
    if (this.#hasSingleName(image.id)) {
      this.#refuseConflicts(image, { force, checkNames: false });
      for (const tag of records.tagsOf(image.id)) this.#untag(tag);
      for (const name of records.repoDigestsOf(image.id)) this.#dropRepoDigest(name);
    }
    this.#delete(image, { force, isQuiet: false });
  }

  /** One tag at most, and digests of that tag's repository only. */
  #hasSingleName(id: Digest): boolean {
    const tags = this.#context.records.tagsOf(id);
    const digests = this.#context.records.repoDigestsOf(id);
    if (tags.length + digests.length <= 1) return true;
    if (tags.length > 1) return false;
    const repositories = new Set(digests.map(({ repository }) => repository));
    const single = tags[0]?.repository ?? digests[0]?.repository ?? '';
    return repositories.size === 1 && repositories.has(single);
  }

  #delete(image: ImageRecord, { force, isQuiet }: { force: boolean; isQuiet: boolean }): void {
    const { records } = this.#context;
    try {
      this.#refuseConflicts(image, { force, checkNames: true });
    } catch (error) {
      // Its name is gone and that was the request; a parent is removed only if nothing stands against it.
      if (isQuiet) return;
      throw error;
    }
    for (const tag of records.tagsOf(image.id)) this.#untag(tag);
    for (const name of records.repoDigestsOf(image.id)) this.#dropRepoDigest(name);
    this.#entries.push({ deleted: image.id });
    const freed = this.#freedChainIds(image);
    const isUsed = this.#options.isUsedBy(image.id).length > 0;
    if (isUsed) {
      records.hide(image.id);
    } else {
      records.delete(image.id);
      this.#deleted.push(image);
      this.#entries.push(...freed.map((chainId) => ({ deleted: chainId })));
    }
    const parent = image.parent && records.isVisible(image.parent) ? records.get(image.parent) : undefined;
    const isNamed = parent && records.tagsOf(parent.id).length + records.repoDigestsOf(parent.id).length > 0;
    if (parent && !isNamed && (this.#options.prune ?? true)) this.#delete(parent, { force: false, isQuiet: true });
  }

  #refuseConflicts(image: ImageRecord, { force, checkNames }: { force: boolean; checkNames: boolean }): void {
    const { records } = this.#context;
    const refuse = (forcing: string, reason: string): never => {
      throw new EngineError('conflict', `conflict: unable to delete ${shortHex(image.id)} (${forcing}) - ${reason}`);
    };
    const users = this.#options.isUsedBy(image.id);
    if (records.childrenOf(image.id).length > 0) refuse('cannot be forced', 'image has dependent child images');
    const running = users.find(({ isRunning }) => isRunning);
    if (running)
      refuse('cannot be forced', `image is being used by running container ${running.containerId.slice(0, 12)}`);
    if (force) return;
    const names = records.tagsOf(image.id).length + records.repoDigestsOf(image.id).length;
    if (checkNames && names > 0) refuse('must be forced', 'image is referenced in multiple repositories');
    const stopped = users[0];
    if (stopped)
      refuse('must be forced', `image is being used by stopped container ${stopped.containerId.slice(0, 12)}`);
  }

  #untag(name: TagName): void {
    this.#context.records.deleteTag(name);
    this.#entries.push({ untagged: `${familiarRepository(name.repository)}:${name.tag}` });
  }

  #dropRepoDigest(name: RepoDigestName): void {
    this.#context.records.deleteRepoDigest(name);
    this.#entries.push({ untagged: `${familiarRepository(name.repository)}@${name.digest}` });
  }

  /** Chain IDs, highest first, that no other image has. */
  #freedChainIds(image: ImageRecord): Digest[] {
    const others = this.#context.records.list().filter(({ id }) => id !== image.id);
    const kept = new Set(others.flatMap(({ layers }) => chainIds(layers.map(({ diffId }) => diffId))));
    return chainIds(image.layers.map(({ diffId }) => diffId))
      .filter((chainId) => !kept.has(chainId))
      .reverse();
  }
}
