import type { Readable } from 'node:stream';
import type { Digest } from '../core/digest.ts';
import { EngineError } from '../core/errors.ts';
import {
  familiarRepository,
  parseImageReference,
  repositoryName,
  type ImageReference,
} from '../core/image-reference.ts';
import type { Database } from '../platform/database.ts';
import { ContentStore } from './content-store.ts';
import { createImage, ingestLayer, type HeldLayer, type ImageSpec } from './image-create.ts';
import { describeHistory, type ImageHistoryEntry } from './image-history.ts';
import { loadImages, type LoadedImage, type LoadOptions } from './image-load.ts';
import { resolveImage } from './image-lookup.ts';
import { pullImage, type PullOptions, type PullResult } from './image-pull.ts';
import { pushImage, type PushedTag, type PushOptions } from './image-push.ts';
import { ImageRecords, type ImageRecord } from './image-records.ts';
import { removeImage, type ImageUsers, type RemovedEntry, type RemoveOptions } from './image-removal.ts';
import { saveImages } from './image-save.ts';
import { defaultLayerLimits, type LayerBuilder, type LayerLimits } from './layer-builder.ts';
import { LayerStore } from './layer-store.ts';
import type { RegistryCredentials } from './registry/authorizer.ts';
import type { RegistryClient } from './registry/registry-client.ts';
import { Semaphore } from './semaphore.ts';
import { SingleFlight } from './single-flight.ts';
import {
  collectUnreferenced,
  findUnpackedLayer,
  type DownloadProgress,
  type StoreContext,
  type StoreLogger,
} from './store-context.ts';

export interface ImageStoreOptions {
  /** The data root; `blobs/` and `layers/` in it are this store's. */
  readonly root: string;
  /** Opened with `imageMigrations`. */
  readonly database: Database;
  readonly layerBuilder: LayerBuilder;
  readonly registry: RegistryClient;
  readonly logger?: StoreLogger;
  readonly clock?: { now(): number };
  readonly layerLimits?: LayerLimits;
  readonly downloadsAtOnce?: number;
  readonly buildsAtOnce?: number;
}

export interface RootfsLayer {
  readonly imagePath: string;
  readonly sizeBytes: number;
  readonly diffId: Digest;
}

const silent: StoreLogger = { debug: () => undefined, warn: () => undefined };

/** The images of one data root: the door of this room. */
export class ImageStore {
  readonly #context: StoreContext;

  private constructor(context: StoreContext) {
    this.#context = context;
  }

  /** Sweeps what an interrupted pull left. Images of earlier runs are there at once; nothing is read but the directories. */
  static async open(options: ImageStoreOptions): Promise<ImageStore> {
    const { root, database, layerBuilder, registry, clock = Date, logger = silent } = options;
    const records = new ImageRecords(database, () => clock.now());
    // What was to be deleted while a pull or a save still needed it.
    const collectLater = (blobs: readonly Digest[], diffIds: readonly Digest[]): void => {
      collectUnreferenced(context, blobs, diffIds).catch((error: unknown) => {
        logger.warn({ error, blobs, diffIds }, 'cannot delete files of a removed image; the next sweep will');
      });
    };
    const contents = await ContentStore.open(root, (blobs) => collectLater(blobs, []));
    const layers = await LayerStore.open({
      root,
      builder: layerBuilder,
      limits: options.layerLimits ?? defaultLayerLimits,
      buildsAtOnce: options.buildsAtOnce ?? 2,
      onFree: (diffIds) => collectLater([], diffIds),
    });
    const downloadSlots = new Semaphore(options.downloadsAtOnce ?? 3);
    const context = {
      root,
      contents,
      layers,
      records,
      registry,
      downloads: new SingleFlight<void, DownloadProgress>(),
      downloadSlots,
      logger,
    };
    return new ImageStore(context);
  }

  /** Without tag and digest: `latest`. The credentials are the caller's and kept for this pull only. */
  async pull(reference: string | ImageReference, options: PullOptions = {}): Promise<PullResult> {
    return pullImage(this.#context, asReference(reference), options);
  }

  /** Without a tag: every tag of the repository. */
  async push(reference: string | ImageReference, options: PushOptions = {}): Promise<PushedTag[]> {
    return pushImage(this.#context, asReference(reference), options);
  }

  /** Checks credentials, for `docker login`; `unauthorized` when the registry refuses them. Nothing is kept. */
  async login(serverAddress: string, credentials: RegistryCredentials, signal?: AbortSignal): Promise<void> {
    await this.#context.registry.login(serverAddress, credentials, signal);
  }

  /** Newest first. */
  list(): ImageRecord[] {
    return this.#context.records.list();
  }

  /** `not-found` with Docker's sentence when there is none. */
  resolve(nameOrId: string): ImageRecord {
    return resolveImage(this.#context.records, nameOrId);
  }

  /** By full ID, also an image that was removed by force while containers use it. */
  get(id: Digest): ImageRecord | undefined {
    return this.#context.records.get(id);
  }

  /** Images built on this one by commit or build. */
  childrenOf(id: Digest): Digest[] {
    return this.#context.records.childrenOf(id);
  }

  tag(source: string, target: string | ImageReference): ImageRecord {
    const { records } = this.#context;
    const image = resolveImage(records, source);
    const reference = asReference(target);
    if (reference.digest !== undefined)
      throw new EngineError('invalid-argument', 'refusing to create a tag with a digest reference');
    const repository = repositoryName(reference);
    if (familiarRepository(repository) === 'sha256') {
      throw new EngineError('invalid-argument', 'refusing to create an ambiguous tag using digest algorithm as name');
    }
    records.transaction(() => records.setTag({ repository, tag: reference.tag ?? 'latest' }, image.id));
    return records.get(image.id) ?? image;
  }

  async remove(nameOrId: string, options: RemoveOptions): Promise<RemovedEntry[]> {
    return removeImage(this.#context, nameOrId, options);
  }

  /** The archive is read to its end; nothing of it is visible before all of it is verified. */
  async load(source: Readable, options: LoadOptions = {}): Promise<LoadedImage[]> {
    return loadImages(this.#context, source, options);
  }

  save(names: readonly string[]): Readable {
    return saveImages(this.#context, names);
  }

  /** A layer made here (commit, build, import): a tar, plain or compressed. Held until disposed of or part of an image. */
  async ingestLayer(source: AsyncIterable<Uint8Array>, options: { signal?: AbortSignal } = {}): Promise<HeldLayer> {
    return ingestLayer(this.#context, source, options.signal);
  }

  /** An image from a configuration and layers that are here. */
  async create(spec: ImageSpec): Promise<ImageRecord> {
    return createImage(this.#context, spec);
  }

  /** The configuration exactly as it was pulled or made. */
  configJson(image: ImageRecord): string {
    return this.#context.records.configJson(image.id) ?? '{}';
  }

  history(image: ImageRecord): ImageHistoryEntry[] {
    return describeHistory(image);
  }

  /** The files to mount, lowest first. One that went missing is rebuilt from its blob. */
  async rootfs(image: ImageRecord, signal?: AbortSignal): Promise<{ layers: RootfsLayer[] }> {
    const { contents, layers, logger } = this.#context;
    const paths: RootfsLayer[] = [];
    for (const { digest, diffId } of image.layers) {
      if (!(await findUnpackedLayer(this.#context, diffId))) {
        logger.warn({ image: image.id, diffId }, 'an unpacked layer is missing; rebuilding it from its blob');
        await contents.open(digest).then((file) => file.close());
        await layers.build({ blobPath: contents.path(digest), digest, diffId }, signal);
      }
      paths.push({ imagePath: layers.path(diffId), sizeBytes: (await layers.size(diffId)) ?? 0, diffId });
    }
    return { layers: paths };
  }

  /** Bytes on disk of blobs and unpacked layers, each counted once. */
  async diskUsage(): Promise<{ blobBytes: number; layerBytes: number }> {
    const { contents, layers } = this.#context;
    const sum = (sizes: readonly (number | undefined)[]): number =>
      sizes.reduce<number>((total, size) => total + (size ?? 0), 0);
    const blobSizes = await Promise.all((await contents.list()).map((digest) => contents.size(digest)));
    const layerSizes = await Promise.all((await layers.list()).map((diffId) => layers.size(diffId)));
    return { blobBytes: sum(blobSizes), layerBytes: sum(layerSizes) };
  }

  /**
   * Deletes files no record names, and images removed by force whose last container is gone. Call it at start and after a container
   * of a removed image is deleted.
   */
  async gc({ isUsedBy }: { isUsedBy: ImageUsers }): Promise<{ deletedFiles: number; freedBytes: number }> {
    const { contents, layers, records } = this.#context;
    const abandoned = records.hiddenIds().filter((id) => isUsedBy(id).length === 0);
    if (abandoned.length > 0) records.transaction(() => abandoned.forEach((id) => records.delete(id)));
    const [blobs, diffIds] = await Promise.all([contents.list(), layers.list()]);
    const before = await this.diskUsage();
    const deletedFiles = await collectUnreferenced(this.#context, blobs, diffIds);
    const after = await this.diskUsage();
    const freedBytes = before.blobBytes + before.layerBytes - after.blobBytes - after.layerBytes;
    return { deletedFiles, freedBytes: Math.max(0, freedBytes) };
  }
}

function asReference(reference: string | ImageReference): ImageReference {
  return typeof reference === 'string' ? parseImageReference(reference) : reference;
}
