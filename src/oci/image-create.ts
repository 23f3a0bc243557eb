import { digestOfBytes, type Digest } from '../core/digest.ts';
import { EngineError } from '../core/errors.ts';
import { repositoryName, type ImageReference } from '../core/image-reference.ts';
import { MAX_LAYERS } from '../wire/oci/manifest.ts';
import { composeManifest, layerMediaType, MAX_CONFIG_BYTES, parseImageConfig } from './image-documents.ts';
import type { ImageLayer, ImageRecord } from './image-records.ts';
import { collectUnreferenced, type StoreContext } from './store-context.ts';

export interface ImageSpec {
  /** The configuration to be written; `rootfs.diff_ids` is set from `layers`. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Lowest first. */
  readonly layers: readonly ImageLayer[];
  readonly parent?: Digest;
  readonly tags?: readonly ImageReference[];
}

/** A layer that is on disk but in no image yet; disposing of it lets it go unless an image has it by then. */
export interface HeldLayer extends AsyncDisposable {
  readonly layer: ImageLayer;
}

export async function ingestLayer(
  context: StoreContext,
  source: AsyncIterable<Uint8Array>,
  signal?: AbortSignal,
): Promise<HeldLayer> {
  const { contents, layers } = context;
  await using writer = await contents.createWriter();
  const head: number[] = [];
  for await (const chunk of source) {
    signal?.throwIfAborted();
    for (const byte of chunk.subarray(0, 4 - head.length)) head.push(byte);
    await writer.write(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength));
  }
  const { digest, bytes } = await writer.finish();
  const pins = new DisposableStack();
  pins.use(contents.pins.hold([digest]));
  let diffIds: readonly Digest[] = [];
  const release = async (): Promise<void> => {
    pins.dispose();
    await collectUnreferenced(context, [digest], diffIds);
  };
  try {
    if (!(await contents.has(digest))) await contents.adopt(writer, digest);
    // The file has its name before anyone here knows it.
    using _everything = layers.pins.holdAll();
    const built = await layers.build({ blobPath: contents.path(digest), digest }, signal);
    diffIds = [built.diffId];
    pins.use(layers.pins.hold(diffIds));
    const { diffId, imageBytes, uncompressedBytes } = built;
    const mediaType = layerMediaType(Uint8Array.from(head));
    return {
      layer: { digest, diffId, mediaType, blobBytes: bytes, imageBytes, uncompressedBytes },
      [Symbol.asyncDispose]: release,
    };
  } catch (error) {
    await release();
    throw error;
  }
}

export async function createImage(context: StoreContext, spec: ImageSpec): Promise<ImageRecord> {
  const { contents, layers: unpacked, records } = context;
  const { layers, parent, tags = [] } = spec;
  if (layers.length > MAX_LAYERS) {
    throw new EngineError(
      'limit-exceeded',
      `an image can have ${MAX_LAYERS} layers, not ${layers.length}; join some of its build steps`,
    );
  }
  const diffIds = layers.map(({ diffId }) => diffId);
  const config = Buffer.from(JSON.stringify({ ...spec.config, rootfs: { type: 'layers', diff_ids: diffIds } }));
  if (config.length > MAX_CONFIG_BYTES)
    throw new EngineError(
      'limit-exceeded',
      `the image configuration has ${config.length} bytes, more than ${MAX_CONFIG_BYTES}`,
    );
  const id = digestOfBytes(config);
  parseImageConfig(config, layers.length, `image ${id}`);
  const descriptors = layers.map(({ digest, blobBytes, mediaType }) => ({ digest, size: blobBytes, mediaType }));
  const manifest = composeManifest({ digest: id, size: config.length }, descriptors);
  using stack = new DisposableStack();
  stack.use(contents.pins.hold([id, manifest.digest, ...layers.map(({ digest }) => digest)]));
  stack.use(unpacked.pins.hold(diffIds));
  await contents.putBytes(config);
  await contents.putBytes(manifest.bytes);
  records.transaction(() => {
    records.add({
      id,
      configJson: config.toString('utf8'),
      manifestDigest: manifest.digest,
      layers,
      ...(parent && { parent }),
    });
    for (const tag of tags) records.setTag({ repository: repositoryName(tag), tag: tag.tag ?? 'latest' }, id);
  });
  const image = records.get(id);
  if (!image) throw new EngineError('internal', `image ${id} vanished while it was being recorded`);
  return image;
}
