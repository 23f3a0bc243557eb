import type { Digest } from '../core/digest.ts';
import type { ContentStore } from './content-store.ts';
import type { ImageLayer, ImageRecords } from './image-records.ts';
import type { LayerStore } from './layer-store.ts';
import type { RegistryClient } from './registry/registry-client.ts';
import type { Semaphore } from './semaphore.ts';
import type { SingleFlight } from './single-flight.ts';

/** Bytes so far, then the moment the whole is being checked. */
export type DownloadProgress = { readonly type: 'bytes'; readonly current: number } | { readonly type: 'verifying' };

export interface StoreLogger {
  debug(details: Readonly<Record<string, unknown>>, message: string): void;
  warn(details: Readonly<Record<string, unknown>>, message: string): void;
}

/** The parts of the store that its use cases share. */
export interface StoreContext {
  readonly root: string;
  readonly contents: ContentStore;
  readonly layers: LayerStore;
  readonly records: ImageRecords;
  readonly registry: RegistryClient;
  readonly downloads: SingleFlight<void, DownloadProgress>;
  readonly downloadSlots: Semaphore;
  readonly logger: StoreLogger;
}

type LayerSizes = Pick<ImageLayer, 'imageBytes' | 'uncompressedBytes'>;

/** Sizes of the unpacked layer if it is there to be used, undefined if it must be built. */
export async function findUnpackedLayer(context: StoreContext, diffId: Digest): Promise<LayerSizes | undefined> {
  if ((await context.layers.size(diffId)) === undefined) return undefined;
  return context.layers.builtHere(diffId) ?? context.records.layerByDiffId(diffId);
}

/** Deletes those of the given files that nothing refers to any more. Returns how many went. */
export async function collectUnreferenced(
  context: StoreContext,
  blobs: Iterable<Digest>,
  diffIds: Iterable<Digest>,
): Promise<number> {
  const { contents, layers, records } = context;
  // Judged and taken away without a pause in between: a pull that ends meanwhile would be judged by what was true before it.
  const usedBlobs = records.referencedBlobs();
  const usedLayers = records.referencedLayers();
  const doomedBlobs = [...new Set(blobs)].filter((digest) => !usedBlobs.has(digest) && !contents.pins.defers(digest));
  const doomedLayers = [...new Set(diffIds)].filter((diffId) => !usedLayers.has(diffId) && !layers.pins.defers(diffId));
  const deletions = [
    ...doomedBlobs.map((digest) => contents.delete(digest)),
    ...doomedLayers.map((diffId) => layers.delete(diffId)),
  ];
  await Promise.all(deletions);
  return deletions.length;
}
