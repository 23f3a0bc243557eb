import { open } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { hexOfDigest, type Digest } from '../core/digest.ts';
import { EngineError } from '../core/errors.ts';
import {
  familiarString,
  parseImageReference,
  repositoryName,
  withDefaultTag,
  type ImageReference,
} from '../core/image-reference.ts';
import { dockerArchiveSchema, layoutIndexSchema, ociLayoutSchema } from '../wire/oci/archive.ts';
import type { Descriptor, OciManifest } from '../wire/oci/manifest.ts';
import { badArchive, readArchive, type ArchiveLimits, type ArchiveMembers } from './archive-reader.ts';
import {
  composeManifest,
  layerMediaType,
  MAX_CONFIG_BYTES,
  MAX_DOCUMENT_BYTES,
  parseDocument,
  parseImageConfig,
  parseManifestDocument,
} from './image-documents.ts';
import type { ImageLayer, NewImage } from './image-records.ts';
import { hostPlatform, selectManifest } from './platform-selection.ts';
import { collectUnreferenced, findUnpackedLayer, type StoreContext } from './store-context.ts';

export interface LoadOptions {
  readonly signal?: AbortSignal | undefined;
  readonly limits?: ArchiveLimits | undefined;
}

export interface LoadedImage {
  readonly id: Digest;
  /** Familiar names it now has; empty when the archive named none. */
  readonly names: readonly string[];
}

interface ArchivedImage {
  readonly config: Digest;
  readonly layers: readonly Descriptor[];
  readonly names: readonly ImageReference[];
  /** Of the layout, when the archive has one for this image. */
  readonly manifest?: Digest | undefined;
}

/** What `docker load` prints for it. docker-py compares the whole line. */
export function describeLoadedImage({ id, names }: LoadedImage): string[] {
  return names.length > 0 ? names.map((name) => `Loaded image: ${name}\n`) : [`Loaded image ID: ${id}\n`];
}

/** A docker-archive, an OCI layout, or both in one tar. All images of it become visible together, or none. */
export async function loadImages(
  context: StoreContext,
  source: Readable,
  options: LoadOptions = {},
): Promise<LoadedImage[]> {
  const { contents, layers, records } = context;
  const { signal, limits } = options;
  const blobs = new Set<Digest>();
  const diffIds = new Set<Digest>();
  const stack = new DisposableStack();
  const hold = (digest: Digest): void => {
    if (blobs.has(digest)) return;
    blobs.add(digest);
    stack.use(contents.pins.hold([digest]));
  };
  try {
    const members = await readArchive(source, contents, hold, { signal, ...(limits && { limits }) });
    const images = await readImages(context, members);
    const added: { image: NewImage; names: readonly ImageReference[] }[] = [];
    for (const archived of images) {
      const configBytes = await contents.readSmall(archived.config, MAX_CONFIG_BYTES);
      const config = parseImageConfig(configBytes, archived.layers.length, `image ${archived.config}`);
      stack.use(layers.pins.hold(config.rootfs.diff_ids));
      for (const diffId of config.rootfs.diff_ids) diffIds.add(diffId);
      const unpacked = await unpackLayers(context, archived.layers, config.rootfs.diff_ids, signal);
      const composed = composeManifest({ digest: archived.config, size: configBytes.length }, archived.layers);
      if (archived.manifest === undefined) hold(composed.digest);
      const manifestDigest = archived.manifest ?? (await contents.putBytes(composed.bytes));
      const image = { id: archived.config, configJson: configBytes.toString('utf8'), manifestDigest, layers: unpacked };
      added.push({ image, names: archived.names });
    }
    signal?.throwIfAborted();
    records.transaction(() => {
      for (const { image, names } of added) {
        records.add(image);
        for (const name of names)
          records.setTag({ repository: repositoryName(name), tag: name.tag ?? 'latest' }, image.id);
      }
    });
    return added.map(({ image, names }) => ({ id: image.id, names: names.map(familiarString) }));
  } finally {
    stack.dispose();
    await collectUnreferenced(context, blobs, diffIds);
  }
}

async function readImages(context: StoreContext, members: ArchiveMembers): Promise<ArchivedImage[]> {
  const layout = await readLayout(context, members);
  const manifestJson = members.find('manifest.json');
  if (!manifestJson) {
    if (layout) return mergeByConfig(layout);
    throw badArchive('it has neither manifest.json nor index.json; for the tar of a root file system use import');
  }
  const bytes = await context.contents.readSmall(manifestJson.digest, MAX_DOCUMENT_BYTES);
  const images: ArchivedImage[] = [];
  for (const entry of parseDocument(dockerArchiveSchema, bytes, 'manifest.json of the archive')) {
    const config = members.require(entry.Config, 'the configuration of an image').digest;
    const layers = await Promise.all((entry.Layers ?? []).map((path) => describeLayer(context, members, path)));
    const names = (entry.RepoTags ?? []).map((name) => withDefaultTag(parseImageReference(name)));
    const sameLayers = (manifest: OciManifest): boolean =>
      manifest.layers.map(({ digest }) => digest).join() === layers.map(({ digest }) => digest).join();
    const twin = layout?.find((image) => image.config === config && sameLayers(image.document));
    images.push({ config, layers: twin?.document.layers ?? layers, names, manifest: twin?.manifest });
  }
  return images;
}

async function describeLayer({ contents }: StoreContext, members: ArchiveMembers, path: string): Promise<Descriptor> {
  const { digest, sizeBytes } = members.require(path, 'a layer');
  await using file = await open(contents.path(digest), 'r');
  const { buffer } = await file.read(Buffer.alloc(4), 0, 4, 0);
  return { digest, size: sizeBytes, mediaType: layerMediaType(buffer) };
}

type LayoutImage = ArchivedImage & { readonly document: OciManifest; readonly manifest: Digest };

/** The images of `index.json` for this platform; undefined when the archive is no OCI layout. */
async function readLayout(context: StoreContext, members: ArchiveMembers): Promise<LayoutImage[] | undefined> {
  const index = members.find('index.json');
  const marker = members.find('oci-layout');
  if (!index || !marker) return undefined;
  const read = async (digest: Digest, subject: string): Promise<Buffer> =>
    context.contents.readSmall(digest, MAX_DOCUMENT_BYTES).catch((error: unknown) => {
      throw error instanceof EngineError && error.code === 'not-found' ? badArchive(`it lacks ${subject}`) : error;
    });
  parseDocument(ociLayoutSchema, await read(marker.digest, 'oci-layout'), 'oci-layout of the archive');
  const { manifests } = parseDocument(
    layoutIndexSchema,
    await read(index.digest, 'index.json'),
    'index.json of the archive',
  );
  const blob = (digest: Digest, purpose: string): Digest => {
    const member = members.require(`blobs/sha256/${hexOfDigest(digest)}`, purpose);
    if (member.digest !== digest) throw badArchive(`its blob ${digest} has other content (${member.digest})`);
    return digest;
  };
  const images: LayoutImage[] = [];
  for (const entry of manifests) {
    let manifest = entry.digest;
    let document = parseManifestDocument(
      await read(blob(manifest, 'a manifest'), 'a manifest'),
      `manifest ${manifest} of the archive`,
    );
    if (document.kind === 'index') {
      manifest = selectManifest(document.index, hostPlatform).digest;
      document = parseManifestDocument(
        await read(blob(manifest, 'a manifest'), 'a manifest'),
        `manifest ${manifest} of the archive`,
      );
    }
    if (document.kind === 'index')
      throw new EngineError('unsupported', 'the archive has an index within an index, which is not supported');
    const { config, layers } = document.manifest;
    blob(config.digest, 'the configuration of an image');
    for (const { digest } of layers) blob(digest, 'a layer');
    const name = nameOf(entry.annotations ?? {});
    images.push({ config: config.digest, layers, names: name ? [name] : [], manifest, document: document.manifest });
  }
  return images;
}

/** `ref.name` is a tag alone in most layouts: that names nothing without a repository. */
function nameOf(annotations: Readonly<Record<string, string>>): ImageReference | undefined {
  const whole = annotations['io.containerd.image.name'];
  const short = annotations['org.opencontainers.image.ref.name'];
  const text = whole ?? (short !== undefined && /[/:]/.test(short) ? short : undefined);
  if (text === undefined) return undefined;
  const { domain, path, tag } = withDefaultTag(parseImageReference(text));
  return { domain, path, tag: tag ?? 'latest' };
}

/** `docker save` lists one entry per tag. */
function mergeByConfig(images: readonly LayoutImage[]): ArchivedImage[] {
  const merged = new Map<Digest, ArchivedImage>();
  for (const image of images) {
    const known = merged.get(image.config);
    merged.set(image.config, known ? { ...known, names: [...known.names, ...image.names] } : image);
  }
  return [...merged.values()];
}

async function unpackLayers(
  context: StoreContext,
  layers: readonly Descriptor[],
  diffIds: readonly Digest[],
  signal: AbortSignal | undefined,
): Promise<ImageLayer[]> {
  const settled = await Promise.allSettled(
    layers.map(async ({ digest, size, mediaType }, position): Promise<ImageLayer> => {
      const diffId = diffIds[position];
      if (diffId === undefined) throw badArchive(`layer ${digest} has no diff ID`);
      const sizes =
        (await findUnpackedLayer(context, diffId)) ??
        (await context.layers.build({ blobPath: context.contents.path(digest), digest, diffId }, signal));
      return {
        digest,
        diffId,
        mediaType,
        blobBytes: size,
        imageBytes: sizes.imageBytes,
        uncompressedBytes: sizes.uncompressedBytes,
      };
    }),
  );
  return settled.map((result) => {
    if (result.status === 'rejected') throw result.reason;
    return result.value;
  });
}
