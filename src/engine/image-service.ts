import type { Readable } from 'node:stream';
import { isRunning } from '../core/container-state.ts';
import type { Digest } from '../core/digest.ts';
import { familiarString, type ImageReference } from '../core/image-reference.ts';
import type { LoadedImage, LoadOptions } from '../oci/image-load.ts';
import type { PullOptions, PullResult } from '../oci/image-pull.ts';
import type { PushedTag, PushOptions } from '../oci/image-push.ts';
import type { ImageRecord } from '../oci/image-records.ts';
import type { RemovedEntry } from '../oci/image-removal.ts';
import type { ImageHistoryEntry } from '../oci/image-history.ts';
import type { EngineContext } from './engine-context.ts';
import type { ImageService } from './engine.ts';

/** Images, with what they mean to the rest of the engine: which containers use them, and what is told of their changes. */
export class Images implements ImageService {
  readonly #context: EngineContext;

  constructor(context: EngineContext) {
    this.#context = context;
  }

  /** Files of images that are gone, and mounts that no image needs: for the daemon's start. */
  async sweep(): Promise<void> {
    const { images, layerMounts } = this.#context;
    await images.gc({ isUsedBy: (id) => this.#usersOf(id) });
    await layerMounts.sweep(this.#neededLayers());
  }

  async pull(reference: string | ImageReference, options: PullOptions = {}): Promise<PullResult> {
    const result = await this.#context.images.pull(reference, options);
    this.#publish('pull', familiar(reference));
    return result;
  }

  async push(reference: string | ImageReference, options: PushOptions = {}): Promise<PushedTag[]> {
    const pushed = await this.#context.images.push(reference, options);
    this.#publish('push', familiar(reference));
    return pushed;
  }

  list(): ImageRecord[] {
    return this.#context.images.list();
  }

  resolve(nameOrId: string): ImageRecord {
    return this.#context.images.resolve(nameOrId);
  }

  get(id: Digest): ImageRecord | undefined {
    return this.#context.images.get(id);
  }

  tag(source: string, target: string | ImageReference): ImageRecord {
    const image = this.#context.images.tag(source, target);
    this.#publish('tag', image.id, familiar(target));
    return image;
  }

  async remove(nameOrId: string, options: { force?: boolean; prune?: boolean }): Promise<RemovedEntry[]> {
    const { images, layerMounts } = this.#context;
    const { id } = images.resolve(nameOrId);
    const entries = await images.remove(nameOrId, { ...options, isUsedBy: (image) => this.#usersOf(image) });
    for (const entry of entries) this.#publish('deleted' in entry ? 'delete' : 'untag', 'deleted' in entry ? entry.deleted : id);
    await layerMounts.sweep(this.#neededLayers());
    return entries;
  }

  async load(source: Readable, options: LoadOptions = {}): Promise<LoadedImage[]> {
    const loaded = await this.#context.images.load(source, options);
    for (const { id, names } of loaded) this.#publish('load', id, names[0] ?? id);
    return loaded;
  }

  save(names: readonly string[]): Readable {
    const { images } = this.#context;
    const archive = images.save(names);
    for (const name of names) this.#publish('save', images.resolve(name).id, name);
    return archive;
  }

  configJson(image: ImageRecord): string {
    return this.#context.images.configJson(image);
  }

  history(image: ImageRecord): ImageHistoryEntry[] {
    return this.#context.images.history(image);
  }

  diskUsage(): Promise<{ blobBytes: number; layerBytes: number }> {
    return this.#context.images.diskUsage();
  }

  containersOf(id: Digest): number {
    return this.#usersOf(id).length;
  }

  #usersOf(id: Digest): { containerId: string; isRunning: boolean }[] {
    return this.#context.table
      .all()
      .filter((record) => record.imageId === id)
      .map((record) => ({ containerId: record.id, isRunning: isRunning(record.state) }));
  }

  /** Of every image there is, and of those that only containers still have. */
  #neededLayers(): Set<string> {
    const { images, table } = this.#context;
    const used = table.all().map((record) => images.get(record.imageId as Digest));
    return new Set([...images.list(), ...used].flatMap((image) => (image?.layers ?? []).map(({ diffId }) => diffId)));
  }

  #publish(action: string, actorId: string, name = actorId): void {
    this.#context.events.publish({ type: 'image', action, actorId, attributes: { name } });
  }
}

function familiar(reference: string | ImageReference): string {
  return typeof reference === 'string' ? reference : familiarString(reference);
}
