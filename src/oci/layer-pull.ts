import type { Digest } from '../core/digest.ts';
import { EngineError } from '../core/errors.ts';
import type { Descriptor } from '../wire/oci/manifest.ts';
import { requireFreeSpace } from './disk-space.ts';
import type { ImageLayer } from './image-records.ts';
import type { PullProgress } from './progress.ts';
import { downloadBlob } from './registry/blob-download.ts';
import type { RegistrySession } from './registry/session.ts';
import { findUnpackedLayer, type DownloadProgress, type StoreContext } from './store-context.ts';

export interface LayersToPull {
  /** Lowest first, as in the manifest. */
  readonly layers: readonly Descriptor[];
  readonly diffIds: readonly Digest[];
  readonly onProgress?: ((event: PullProgress) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

interface LayerPlan {
  readonly blob: Descriptor;
  readonly diffId: Digest;
  readonly hasBlob: boolean;
  readonly sizes: Pick<ImageLayer, 'imageBytes' | 'uncompressedBytes'> | undefined;
}

/** Downloads finish out of order, so a line of progress is due at most this often per layer. */
const PROGRESS_INTERVAL_MS = 100;
/** What runs at once before a layer is shown as waiting. */
const SHOWN_AT_ONCE = 3;

/** Brings every layer to disk, as blob and as unpacked image: one is unpacked while the next ones are downloaded. */
export async function pullLayers(
  context: StoreContext,
  session: RegistrySession,
  request: LayersToPull,
): Promise<ImageLayer[]> {
  const report = request.onProgress ?? (() => undefined);
  const plans = await planLayers(context, request);
  await requireSpace(context, plans);
  const missing = plans.filter(({ hasBlob, sizes }) => !hasBlob || !sizes);
  for (const { blob, hasBlob, sizes } of plans)
    report({ type: hasBlob && sizes ? 'exists' : 'layerQueued', digest: blob.digest });
  for (const { blob } of missing.slice(SHOWN_AT_ONCE)) report({ type: 'waiting', digest: blob.digest });

  // One failure stops the others; all have ended before it is passed on, so nothing is written behind the caller's back.
  const failure = new AbortController();
  const signal = request.signal ? AbortSignal.any([request.signal, failure.signal]) : failure.signal;
  const results = await Promise.all(
    plans.map(async (plan) => {
      try {
        return await pullLayer(context, session, plan, report, signal);
      } catch (error) {
        // Only the first reason counts; the others fail because of it.
        failure.abort(error);
        return undefined;
      }
    }),
  );
  request.signal?.throwIfAborted();
  failure.signal.throwIfAborted();
  const done = new Map(results.flatMap((layer) => (layer ? [[layer.digest, layer] as const] : [])));
  return request.layers.map(({ digest }) => {
    const layer = done.get(digest);
    if (!layer) throw new EngineError('internal', `layer ${digest} was not pulled`);
    return layer;
  });
}

async function planLayers(context: StoreContext, { layers, diffIds }: LayersToPull): Promise<LayerPlan[]> {
  const plans = new Map<Digest, LayerPlan>();
  for (const [position, blob] of layers.entries()) {
    const diffId = diffIds[position];
    const known = plans.get(blob.digest);
    if (known && known.diffId === diffId) continue;
    if (known || diffId === undefined) {
      throw new EngineError(
        'invalid-argument',
        `layer ${blob.digest} is listed twice with different diff IDs; the image is broken`,
      );
    }
    const size = await context.contents.size(blob.digest);
    if (size !== undefined && size !== blob.size) {
      throw new EngineError(
        'invalid-argument',
        `layer ${blob.digest} has ${size} bytes, the manifest says ${blob.size}; the image is broken`,
      );
    }
    const sizes = await findUnpackedLayer(context, diffId);
    plans.set(blob.digest, { blob, diffId, hasBlob: size !== undefined, sizes });
  }
  return [...plans.values()];
}

/** A layer unpacks to at least its own size, so twice that is the least a new one takes. */
async function requireSpace(context: StoreContext, plans: readonly LayerPlan[]): Promise<void> {
  const needed = plans.reduce(
    (sum, { blob, hasBlob, sizes }) => sum + (hasBlob ? 0 : blob.size) + (sizes ? 0 : blob.size),
    0,
  );
  if (needed > 0) await requireFreeSpace(context.root, needed, 'the layers to pull');
}

async function pullLayer(
  context: StoreContext,
  session: RegistrySession,
  plan: LayerPlan,
  report: (event: PullProgress) => void,
  signal: AbortSignal,
): Promise<ImageLayer> {
  const { blob, diffId } = plan;
  const { digest, size, mediaType } = blob;
  if (!plan.hasBlob) {
    await fetchBlob(context, session, blob, {
      signal,
      onProgress: (progress) =>
        report(
          progress.type === 'bytes'
            ? { type: 'downloading', digest, current: progress.current, total: size }
            : { type: 'verifying', digest },
        ),
    });
    report({ type: 'downloaded', digest });
  }
  let sizes = plan.sizes;
  if (!sizes) {
    report({ type: 'extracting', digest, current: 0, total: size });
    sizes = await context.layers.build({ blobPath: context.contents.path(digest), digest, diffId }, signal);
    report({ type: 'extracting', digest, current: size, total: size });
  }
  if (!plan.hasBlob || !plan.sizes) report({ type: 'pulled', digest });
  const { imageBytes, uncompressedBytes } = sizes;
  return { digest, diffId, mediaType, blobBytes: size, imageBytes, uncompressedBytes };
}

/** One blob into the store, sharing the download with whoever else wants it. */
export async function fetchBlob(
  context: StoreContext,
  session: RegistrySession,
  blob: Descriptor,
  { signal, onProgress }: { signal?: AbortSignal | undefined; onProgress?: (progress: DownloadProgress) => void },
): Promise<void> {
  const { contents, downloads, downloadSlots, registry } = context;
  if (await contents.has(blob.digest)) return;
  for (;;) {
    let started = false;
    try {
      await downloads.join(blob.digest, { signal, onProgress }, async (flight) => {
        started = true;
        using _slot = await downloadSlots.acquire(flight.signal);
        if (await contents.has(blob.digest)) return;
        let reportedAt = 0;
        await downloadBlob({
          session,
          store: contents,
          blob,
          retry: registry.retry,
          signal: flight.signal,
          onBytes: (current) => {
            const now = performance.now();
            if (now - reportedAt < PROGRESS_INTERVAL_MS && current !== blob.size) return;
            reportedAt = now;
            flight.report({ type: 'bytes', current });
          },
          onVerifying: () => flight.report({ type: 'verifying' }),
        });
      });
      return;
    } catch (error) {
      // Another's failure (his credentials, his connection) is not ours.
      if (started || signal?.aborted) throw error;
    }
  }
}
