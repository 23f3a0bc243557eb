import type { Readable } from 'node:stream';
import { isRunning } from '../core/container-state.ts';
import { parseDigest, type Digest } from '../core/digest.ts';
import { EngineError } from '../core/errors.ts';
import { familiarName, familiarString, type ImageReference } from '../core/image-reference.ts';
import type { ImageHistoryEntry } from '../oci/image-history.ts';
import type { LoadedImage, LoadOptions } from '../oci/image-load.ts';
import type { PullOptions, PullResult } from '../oci/image-pull.ts';
import type { PushedTag, PushOptions } from '../oci/image-push.ts';
import type { ImageRecord } from '../oci/image-records.ts';
import type { ImageUser, RemovedEntry } from '../oci/image-removal.ts';
import type { ImageStore } from '../oci/image-store.ts';
import type { RegistryCredentials } from '../oci/registry/authorizer.ts';
import type { Clock } from '../platform/clock.ts';
import type { LayerMounts } from '../sandbox/os/layer-mounts.ts';
import type { MachinePool } from '../sandbox/vm/machine-pool.ts';
import type { ContainerRecord } from './container-record.ts';
import type { EventLog, Filters, ImageService, ImportOptions } from './engine.ts';
import { selectImages, selectPrunable } from './image-filters.ts';
import { KeyedLock } from './keyed-lock.ts';

/** What images need of the engine; an `EngineContext` has all of it. */
export interface ImageSurroundings {
  readonly images: ImageStore;
  /** The containers, which stand against a removal. */
  readonly table: { all(): readonly Pick<ContainerRecord, 'id' | 'imageId' | 'state'>[] };
  readonly events: Pick<EventLog, 'publish'>;
  readonly layerMounts: Pick<LayerMounts, 'sweep'>;
  /** Machines that wait with an image's layers. */
  readonly pool?: Pick<MachinePool, 'images' | 'dropImage'> | undefined;
  readonly clock: Pick<Clock, 'nowMs'>;
  readonly logger: { error(facts: object, message: string): void };
}

/**
 * Images, with what they mean to the rest of the engine: which containers use them, and who is told of their changes. Actor and name of
 * events are Docker's. Source: moby v28.2.2 daemon/images, image/tarexport, distribution
 */
export class Images implements ImageService {
  readonly #store: ImageStore;
  readonly #surroundings: ImageSurroundings;
  readonly #locks = new KeyedLock();

  constructor(surroundings: ImageSurroundings) {
    this.#store = surroundings.images;
    this.#surroundings = surroundings;
  }

  /** Gives up files and mounts that no image needs: for the daemon's start. Failures are logged: nothing depends on it. */
  async sweep(): Promise<void> {
    try {
      await this.#store.gc({ isUsedBy: (id) => this.#usersOf(id) });
    } catch (error) {
      this.#surroundings.logger.error(
        { err: error },
        'cannot delete files that no image needs; the next start tries again',
      );
    }
    await this.#releaseMounts();
  }

  /** An image that was removed by force stays for the containers it had; it goes with the last of them. */
  async afterContainerRemoval(imageId: string): Promise<void> {
    if (this.#find(imageId) === undefined && this.#usersOf(parseDigest(imageId)).length === 0) await this.sweep();
  }

  list(options: { all: boolean; filters: Filters }): ImageRecord[] {
    return selectImages(this.#store, options.filters, options);
  }

  resolve(nameOrId: string): ImageRecord {
    return this.#store.resolve(nameOrId);
  }

  containersOf(id: Digest): string[] {
    return this.#usersOf(id).map(({ containerId }) => containerId);
  }

  history(image: ImageRecord): ImageHistoryEntry[] {
    return this.#store.history(image);
  }

  diskUsage(): Promise<{ blobBytes: number; layerBytes: number }> {
    return this.#store.diskUsage();
  }

  async pull(reference: ImageReference, options: PullOptions): Promise<PullResult> {
    const result = await this.#store.pull(reference, options);
    this.#publish('pull', familiarString(reference), familiarName(reference), result.image);
    return result;
  }

  async push(reference: ImageReference, options: PushOptions): Promise<PushedTag[]> {
    const pushed = await this.#store.push(reference, options);
    const name = familiarString(reference);
    this.#publish('push', name, familiarName(reference), this.#find(name));
    return pushed;
  }

  login(serverAddress: string, credentials: RegistryCredentials, signal: AbortSignal): Promise<void> {
    return this.#store.login(serverAddress, credentials, signal);
  }

  tag(source: string, target: ImageReference): ImageRecord {
    const image = this.#store.tag(source, target);
    this.#publish('tag', image.id, familiarString(target), image);
    return image;
  }

  async remove(nameOrId: string, options: { force: boolean; prune: boolean }): Promise<RemovedEntry[]> {
    const entries = await this.#remove(nameOrId, options);
    await this.#releaseMounts();
    return entries;
  }

  async prune(filters: Filters): Promise<{ removed: RemovedEntry[]; reclaimedBytes: number }> {
    const prunable = selectPrunable(this.#store, filters);
    const before = await this.#store.diskUsage();
    const removed: RemovedEntry[] = [];
    for (const image of prunable) {
      if (this.#usersOf(image.id).length > 0) continue;
      // Names one by one: by its id, an image of several repositories could only be removed by force.
      for (const name of image.repoTags.length > 0 ? image.repoTags : [image.id]) {
        removed.push(...(await this.#remove(name, {}).catch(unlessInUse)));
      }
    }
    await this.#releaseMounts();
    const after = await this.#store.diskUsage();
    const reclaimedBytes = Math.max(0, before.blobBytes + before.layerBytes - after.blobBytes - after.layerBytes);
    const attributes = { reclaimed: String(reclaimedBytes) };
    this.#surroundings.events.publish({ type: 'image', action: 'prune', actorId: '', attributes });
    return { removed, reclaimedBytes };
  }

  async load(source: Readable, options: LoadOptions): Promise<LoadedImage[]> {
    const loaded = await this.#store.load(source, options);
    for (const { id } of loaded) this.#publish('load', id, id, this.#find(id));
    return loaded;
  }

  save(names: readonly string[]): Readable {
    const archive = this.#store.save(names);
    const images = names.map((name) => this.#find(name)).filter((image) => image !== undefined);
    for (const [id, image] of new Map(images.map((one) => [one.id, one]))) this.#publish('save', id, id, image);
    return archive;
  }

  async import(source: AsyncIterable<Uint8Array>, options: ImportOptions): Promise<ImageRecord> {
    const { target, comment, signal } = options;
    await using held = await this.#store.ingestLayer(source, { signal });
    const created = new Date(this.#surroundings.clock.nowMs()).toISOString();
    const image = await this.#store.create({
      config: { architecture: 'amd64', os: 'linux', created, comment, config: {}, history: [{ created, comment }] },
      layers: [held.layer],
      ...(target ? { tags: [target] } : {}),
    });
    if (target) this.#publish('tag', image.id, familiarString(target), image);
    this.#publish('import', image.id, image.id, image);
    return image;
  }

  /** Without giving up mounts. */
  async #remove(nameOrId: string, options: { force?: boolean; prune?: boolean }): Promise<RemovedEntry[]> {
    const image = this.#store.resolve(nameOrId);
    // Entries tell of deleted layers as well; there are events of images only.
    const deletable = new Set<string>([image, ...this.#ancestorsOf(image)].map(({ id }) => id));
    const entries = await this.#store.remove(nameOrId, { ...options, isUsedBy: (id) => this.#usersOf(id) });
    for (const entry of entries) {
      if ('untagged' in entry) this.#publish('untag', image.id, image.id, image);
      else if (deletable.has(entry.deleted)) this.#publish('delete', entry.deleted, entry.deleted);
    }
    return entries;
  }

  #ancestorsOf(image: ImageRecord): ImageRecord[] {
    const parent = image.parent && this.#store.get(image.parent);
    return parent ? [parent, ...this.#ancestorsOf(parent)] : [];
  }

  #usersOf(id: Digest): ImageUser[] {
    return this.#surroundings.table
      .all()
      .filter((record) => record.imageId === id)
      .map((record) => ({ containerId: record.id, isRunning: isRunning(record.state) }));
  }

  /** One at a time: two would unmount the same. What is removed stays removed when it fails. */
  async #releaseMounts(): Promise<void> {
    const { layerMounts, logger, pool } = this.#surroundings;
    for (const id of pool?.images() ?? []) if (!this.#store.get(parseDigest(id))) await pool?.dropImage(id);
    try {
      await this.#locks.run('mounts', () => layerMounts.sweep(this.#neededLayers()));
    } catch (error) {
      logger.error({ err: error }, 'cannot unmount layers that no image needs; the next removal tries again');
    }
  }

  /** Of every image there is, and of those that only containers still have. */
  #neededLayers(): Set<Digest> {
    const used = new Set(this.#surroundings.table.all().map(({ imageId }) => imageId));
    const images = [...this.#store.list(), ...[...used].map((id) => this.#store.get(parseDigest(id)))];
    return new Set(images.flatMap((image) => (image?.layers ?? []).map(({ diffId }) => diffId)));
  }

  #find(nameOrId: string): ImageRecord | undefined {
    try {
      return this.#store.resolve(nameOrId);
    } catch (error) {
      if (error instanceof EngineError && error.code === 'not-found') return undefined;
      throw error;
    }
  }

  /** An image's labels are attributes of what happens to it, except of its end. */
  #publish(action: string, actorId: string, name: string, image?: ImageRecord): void {
    const attributes = { ...image?.config.config.Labels, name };
    this.#surroundings.events.publish({ type: 'image', action, actorId, attributes });
  }
}

/** Others were built on it since the list was made, or a container was: it stays. */
function unlessInUse(error: unknown): [] {
  if (error instanceof EngineError && (error.code === 'conflict' || error.code === 'not-found')) return [];
  throw error;
}
