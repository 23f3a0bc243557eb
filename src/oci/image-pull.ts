import type { Digest } from '../core/digest.ts';
import { EngineError } from '../core/errors.ts';
import {
  familiarName,
  familiarString,
  repositoryName,
  withDefaultTag,
  type ImageReference,
} from '../core/image-reference.ts';
import type { Descriptor } from '../wire/oci/manifest.ts';
import { MAX_CONFIG_BYTES, parseImageConfig, parseManifestDocument } from './image-documents.ts';
import type { ImageRecord } from './image-records.ts';
import { fetchBlob, pullLayers } from './layer-pull.ts';
import { hostPlatform, selectManifest, type Platform } from './platform-selection.ts';
import type { PullProgress, PullStatus } from './progress.ts';
import type { RegistryCredentials } from './registry/authorizer.ts';
import { RegistryRefusal } from './registry/registry-errors.ts';
import type { FetchedManifest, RegistrySession } from './registry/session.ts';
import { collectUnreferenced, type StoreContext } from './store-context.ts';

export interface PullOptions {
  readonly platform?: Platform | undefined;
  readonly auth?: RegistryCredentials | undefined;
  readonly onProgress?: ((event: PullProgress) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface PullResult {
  readonly image: ImageRecord;
  readonly status: PullStatus;
  /** Of what the reference named: index or manifest. */
  readonly digest: Digest;
}

interface ResolvedManifest {
  /** What the reference named. */
  readonly named: FetchedManifest;
  /** The image's own manifest: `named`, or the entry of the index chosen. */
  readonly own: FetchedManifest;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
}

/** Pulls one reference. Until the last step nothing is visible; on failure what only this pull brought is deleted. */
export async function pullImage(
  context: StoreContext,
  reference: ImageReference,
  options: PullOptions,
): Promise<PullResult> {
  const wanted = withDefaultTag(reference);
  const { auth, signal } = options;
  try {
    return await context.registry.withRepository(
      { reference: wanted, credentials: auth, actions: 'pull', signal },
      (session) => pullFrom(context, session, wanted, options),
    );
  } catch (error) {
    throw explainPullFailure(error, wanted);
  }
}

async function pullFrom(
  context: StoreContext,
  session: RegistrySession,
  reference: ImageReference,
  options: PullOptions,
): Promise<PullResult> {
  const { contents, layers, records } = context;
  const report = options.onProgress ?? (() => undefined);
  const resolved = await resolveManifest(session, reference, options);
  const { named, own, config } = resolved;
  const blobs = [named.digest, own.digest, config.digest, ...resolved.layers.map(({ digest }) => digest)];
  using stack = new DisposableStack();
  stack.use(contents.pins.hold(blobs));
  report({ type: 'started', reference });
  let diffIds: readonly Digest[] = [];
  try {
    await fetchBlob(context, session, config, { signal: options.signal });
    const configBytes = await contents.readSmall(config.digest, MAX_CONFIG_BYTES);
    const parsed = parseImageConfig(configBytes, resolved.layers.length, familiarString(reference));
    diffIds = parsed.rootfs.diff_ids;
    stack.use(layers.pins.hold(diffIds));
    const isNews = !records.isVisible(config.digest);
    const pulled = await pullLayers(context, session, {
      layers: resolved.layers,
      diffIds,
      onProgress: isNews ? report : undefined,
      signal: options.signal,
    });
    await contents.putBytes(own.bytes);
    if (named !== own) await contents.putBytes(named.bytes);
    options.signal?.throwIfAborted();
    const status = records.transaction((): PullStatus => {
      const image = {
        id: config.digest,
        configJson: configBytes.toString('utf8'),
        manifestDigest: own.digest,
        layers: pulled,
      };
      records.add(image);
      return recordNames(context, reference, named.digest, config.digest) || isNews ? 'downloaded' : 'up-to-date';
    });
    report({ type: 'digest', digest: named.digest });
    report({ type: 'finished', status, reference });
    const image = records.get(config.digest);
    if (!image) throw new EngineError('internal', `image ${config.digest} vanished while it was being recorded`);
    return { image, status, digest: named.digest };
  } catch (error) {
    stack.dispose();
    await collectUnreferenced(context, blobs, diffIds);
    throw error;
  }
}

/** Whether a name now means another image than before. */
function recordNames({ records }: StoreContext, reference: ImageReference, digest: Digest, id: Digest): boolean {
  const repository = repositoryName(reference);
  const before = records.imageOfRepoDigest({ repository, digest });
  records.setRepoDigest({ repository, digest }, id);
  // With a digest the tag is only decoration: it was not asked of the registry.
  if (reference.digest !== undefined || reference.tag === undefined) return before !== id;
  const tag = { repository, tag: reference.tag };
  const tagged = records.imageOfTag(tag);
  records.setTag(tag, id);
  return tagged !== id;
}

async function resolveManifest(
  session: RegistrySession,
  reference: ImageReference,
  options: PullOptions,
): Promise<ResolvedManifest> {
  const subject = `the manifest of ${familiarString(reference)}`;
  const named = await session.fetchManifest(reference.digest ?? reference.tag ?? 'latest', options.signal);
  const document = parseManifestDocument(named.bytes, subject);
  if (document.kind === 'manifest')
    return { named, own: named, config: document.manifest.config, layers: document.manifest.layers };
  const entry = selectManifest(document.index, options.platform ?? hostPlatform);
  const own = await session.fetchManifest(entry.digest, options.signal);
  const inner = parseManifestDocument(own.bytes, subject);
  if (inner.kind !== 'manifest')
    throw new EngineError('unsupported', `${subject} is an index within an index, which is not supported`);
  return { named, own, config: inner.manifest.config, layers: inner.manifest.layers };
}

/** Docker's sentences, which its clients search for. Source: moby v28.2.2 distribution/errors.go */
function explainPullFailure(error: unknown, reference: ImageReference): unknown {
  if (!(error instanceof RegistryRefusal)) return error;
  const options = { details: error.details, cause: error };
  const name = familiarName(reference);
  switch (error.refusal) {
    case 'DENIED':
      return new EngineError(
        'not-found',
        `pull access denied for ${name}, repository does not exist or may require 'docker login': ${error.message}`,
        options,
      );
    case 'MANIFEST_UNKNOWN':
      return new EngineError(
        'not-found',
        `manifest for ${familiarString(reference)} not found: ${error.message}`,
        options,
      );
    case 'NAME_UNKNOWN':
      return new EngineError('not-found', `repository ${name} not found: ${error.message}`, options);
    default:
      return error;
  }
}
