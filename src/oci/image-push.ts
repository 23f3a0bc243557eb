import type { Digest } from '../core/digest.ts';
import { EngineError } from '../core/errors.ts';
import { familiarName, familiarString, repositoryName, type ImageReference } from '../core/image-reference.ts';
import { mediaTypes } from '../wire/oci/manifest.ts';
import { MAX_DOCUMENT_BYTES, parseManifestDocument } from './image-documents.ts';
import type { ImageLayer, ImageRecord } from './image-records.ts';
import type { PushProgress } from './progress.ts';
import type { RegistryCredentials } from './registry/authorizer.ts';
import { BlobUpload } from './registry/blob-upload.ts';
import type { RegistrySession } from './registry/session.ts';
import { discard } from './registry/transport.ts';
import { Semaphore } from './semaphore.ts';
import type { StoreContext } from './store-context.ts';

export interface PushOptions {
  readonly auth?: RegistryCredentials | undefined;
  readonly onProgress?: ((event: PushProgress) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface PushedTag {
  readonly tag: string;
  readonly digest: Digest;
  readonly sizeBytes: number;
}

const UPLOADS_AT_ONCE = 3;

/** Pushes one tag, or every tag of the repository when the reference has none. */
export async function pushImage(
  context: StoreContext,
  reference: ImageReference,
  options: PushOptions,
): Promise<PushedTag[]> {
  if (reference.digest !== undefined) throw new EngineError('invalid-argument', 'cannot push a digest reference');
  const repository = repositoryName(reference);
  const tags = reference.tag === undefined ? context.records.tagsOfRepository(repository) : [reference.tag];
  const images = tags.map((tag) => ({ tag, image: imageToPush(context, reference, tag) }));
  if (images.length === 0) {
    throw new EngineError('not-found', `An image does not exist locally with the tag: ${familiarName(reference)}`);
  }
  const report = options.onProgress ?? (() => undefined);
  report({ type: 'started', reference });
  const { auth, signal } = options;
  return context.registry.withRepository(
    { reference, credentials: auth, actions: 'pull,push', signal },
    async (session) => {
      const pushed: PushedTag[] = [];
      for (const { tag, image } of images)
        pushed.push(await pushTag(context, session, reference, { tag, image }, options));
      return pushed;
    },
  );
}

function imageToPush(context: StoreContext, reference: ImageReference, tag: string): ImageRecord {
  const repository = repositoryName(reference);
  const id = context.records.imageOfTag({ repository, tag });
  const image = id && context.records.get(id);
  if (image) return image;
  const isKnown = context.records.tagsOfRepository(repository).length > 0;
  throw new EngineError(
    'not-found',
    isKnown
      ? `tag does not exist: ${familiarString({ ...reference, tag })}`
      : `An image does not exist locally with the tag: ${familiarName(reference)}`,
  );
}

async function pushTag(
  context: StoreContext,
  session: RegistrySession,
  reference: ImageReference,
  { tag, image }: { tag: string; image: ImageRecord },
  options: PushOptions,
): Promise<PushedTag> {
  const { contents, records } = context;
  const report = options.onProgress ?? (() => undefined);
  const { signal } = options;
  using _pins = contents.pins.hold([image.id, image.manifestDigest, ...image.layers.map(({ digest }) => digest)]);
  const layers = [...new Map(image.layers.map((layer) => [layer.digest, layer])).values()];
  for (const { diffId } of layers) report({ type: 'preparing', diffId });
  for (const { diffId } of layers.slice(UPLOADS_AT_ONCE)) report({ type: 'waiting', diffId });

  const slots = new Semaphore(UPLOADS_AT_ONCE);
  const failure = new AbortController();
  const either = signal ? AbortSignal.any([signal, failure.signal]) : failure.signal;
  await Promise.allSettled(
    layers.map(async (layer) => {
      try {
        using _slot = await slots.acquire(either);
        await pushLayer(context, session, reference, layer, report, either);
      } catch (error) {
        // Only the first reason counts; the others fail because of it.
        failure.abort(error);
      }
    }),
  );
  signal?.throwIfAborted();
  failure.signal.throwIfAborted();

  await new BlobUpload(session, contents, { digest: image.id, sizeBytes: (await contents.size(image.id)) ?? 0 }).run({
    signal,
  });
  const manifest = await contents.readSmall(image.manifestDigest, MAX_DOCUMENT_BYTES);
  const parsed = parseManifestDocument(manifest, `the manifest of ${familiarString({ ...reference, tag })}`);
  const declared = parsed.kind === 'manifest' ? parsed.manifest.mediaType : undefined;
  const headers = { 'content-type': declared ?? mediaTypes.ociManifest };
  const request = {
    method: 'PUT',
    url: session.url(`manifests/${tag}`),
    headers,
    body: () => manifest,
    signal,
  } as const;
  await discard(await session.send(request, [200, 201, 202]));

  const digest = image.manifestDigest;
  records.transaction(() => {
    if (records.get(image.id)) records.setRepoDigest({ repository: repositoryName(reference), digest }, image.id);
  });
  report({ type: 'finished', tag, digest, sizeBytes: manifest.length });
  return { tag, digest, sizeBytes: manifest.length };
}

async function pushLayer(
  context: StoreContext,
  session: RegistrySession,
  reference: ImageReference,
  layer: ImageLayer,
  report: (event: PushProgress) => void,
  signal: AbortSignal,
): Promise<void> {
  const { digest, diffId, blobBytes } = layer;
  const prefix = `${reference.domain}/`;
  const sources = context.records
    .repositoriesWithBlob(reference.domain, digest)
    .map((name) => name.slice(prefix.length));
  const outcome = await new BlobUpload(session, context.contents, { digest, sizeBytes: blobBytes }).run({
    signal,
    mountFrom: sources.find((path) => path !== reference.path),
    onBytes: (current) => report({ type: 'pushing', diffId, current, total: blobBytes }),
  });
  if (outcome.kind === 'exists') report({ type: 'exists', diffId });
  else if (outcome.kind === 'mounted') report({ type: 'mounted', diffId, from: outcome.from });
  else report({ type: 'pushed', diffId });
}
