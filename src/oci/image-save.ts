import { Readable } from 'node:stream';
import { hexOfDigest, type Digest } from '../core/digest.ts';
import { EngineError } from '../core/errors.ts';
import { familiarRepository, parseImageReference, repositoryName } from '../core/image-reference.ts';
import { mediaTypes } from '../wire/oci/manifest.ts';
import { isIdOf, resolveImage } from './image-lookup.ts';
import type { ImageRecord, ImageRecords, TagName } from './image-records.ts';
import type { StoreContext } from './store-context.ts';
import { encodeTarHeader, TAR_BLOCK_BYTES, tarPadding } from './tar-header.ts';

interface SavedImage {
  readonly image: ImageRecord;
  readonly tags: TagName[];
}

/**
 * One tar that is a docker-archive and an OCI layout at once, with the blobs as pulled. The names are resolved before the first byte, so
 * an unknown one is an ordinary error; the files are held until the stream ends or is destroyed.
 */
export function saveImages(context: StoreContext, names: readonly string[]): Readable {
  if (names.length === 0) throw new EngineError('invalid-argument', 'name at least one image to save');
  const images = selectImages(context.records, names);
  const blobs = images.flatMap(({ image }) => [
    image.manifestDigest,
    image.id,
    ...image.layers.map(({ digest }) => digest),
  ]);
  const pins = context.contents.pins.hold(blobs);
  const stream = Readable.from(writeArchive(context, images, [...new Set(blobs)]), {
    objectMode: false,
    highWaterMark: 256 * 1024,
  });
  // Also for a stream that is destroyed before it was ever read, when the generator's own clean-up does not run.
  stream.once('close', () => pins[Symbol.dispose]());
  return stream;
}

/** A repository alone means all its tags; an ID means the image without names. */
function selectImages(records: ImageRecords, names: readonly string[]): SavedImage[] {
  const selected = new Map<Digest, SavedImage>();
  const add = (image: ImageRecord, tags: readonly TagName[]): void => {
    const entry = selected.get(image.id) ?? { image, tags: [] };
    for (const tag of tags)
      if (!entry.tags.some((known) => known.repository === tag.repository && known.tag === tag.tag))
        entry.tags.push(tag);
    selected.set(image.id, entry);
  };
  for (const name of names) {
    const tags = tagsNamed(records, name);
    for (const tag of tags) {
      const id = records.imageOfTag(tag);
      const image = id && records.get(id);
      if (image) add(image, [tag]);
    }
    if (tags.length === 0) add(resolveImage(records, name), []);
  }
  return [...selected.values()];
}

function tagsNamed(records: ImageRecords, name: string): TagName[] {
  if (/^(sha256:)?[0-9a-f]{64}$/.test(name)) return [];
  const reference = parseImageReference(name);
  const repository = repositoryName(reference);
  if (reference.digest !== undefined) return [];
  if (reference.tag === undefined) return records.tagsOfRepository(repository).map((tag) => ({ repository, tag }));
  const image = resolveImage(records, name);
  return isIdOf(image.id, name) ? [] : [{ repository, tag: reference.tag }];
}

async function* writeArchive(
  context: StoreContext,
  images: readonly SavedImage[],
  blobs: readonly Digest[],
): AsyncGenerator<Buffer> {
  for (const digest of blobs) yield* writeBlob(context, digest);
  yield* writeJson('oci-layout', { imageLayoutVersion: '1.0.0' });
  yield* writeJson('index.json', await describeLayout(context, images));
  yield* writeJson('manifest.json', images.map(describeDockerImage));
  yield* writeJson('repositories', describeRepositories(images));
  yield Buffer.alloc(2 * TAR_BLOCK_BYTES);
}

function blobPath(digest: Digest): string {
  return `blobs/sha256/${hexOfDigest(digest)}`;
}

async function* writeBlob({ contents }: StoreContext, digest: Digest): AsyncGenerator<Buffer> {
  await using file = await contents.open(digest);
  const { size } = await file.stat();
  yield encodeTarHeader(blobPath(digest), size);
  for await (const chunk of file.createReadStream({ highWaterMark: 256 * 1024, autoClose: false }))
    yield chunk as Buffer;
  yield tarPadding(size);
}

function* writeJson(name: string, value: unknown): Generator<Buffer> {
  const bytes = Buffer.from(JSON.stringify(value));
  yield encodeTarHeader(name, bytes.length);
  yield bytes;
  yield tarPadding(bytes.length);
}

async function describeLayout({ contents }: StoreContext, images: readonly SavedImage[]): Promise<unknown> {
  const manifests = await Promise.all(
    images.map(async ({ image, tags }) => {
      const size = (await contents.size(image.manifestDigest)) ?? 0;
      const platform = { architecture: image.config.architecture, os: image.config.os };
      const bytes = await contents.readSmall(image.manifestDigest, 4 * 1024 * 1024);
      const declared: unknown = (JSON.parse(bytes.toString('utf8')) as { mediaType?: unknown }).mediaType;
      const mediaType = typeof declared === 'string' ? declared : mediaTypes.ociManifest;
      const descriptor = { mediaType, digest: image.manifestDigest, size, platform };
      if (tags.length === 0) return [descriptor];
      return tags.map(({ repository, tag }) => ({
        ...descriptor,
        annotations: { 'io.containerd.image.name': `${repository}:${tag}`, 'org.opencontainers.image.ref.name': tag },
      }));
    }),
  );
  return { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: manifests.flat() };
}

function describeDockerImage({ image, tags }: SavedImage): unknown {
  const names = tags.map(({ repository, tag }) => `${familiarRepository(repository)}:${tag}`);
  return {
    Config: blobPath(image.id),
    RepoTags: names.length > 0 ? names : null,
    Layers: image.layers.map(({ digest }) => blobPath(digest)),
  };
}

/** The format of before 2015 some readers still open first. */
function describeRepositories(images: readonly SavedImage[]): Record<string, Record<string, string>> {
  const repositories: Record<string, Record<string, string>> = {};
  for (const { image, tags } of images) {
    const top = image.layers.at(-1)?.digest ?? image.id;
    for (const { repository, tag } of tags)
      (repositories[familiarRepository(repository)] ??= {})[tag] = hexOfDigest(top);
  }
  return repositories;
}
