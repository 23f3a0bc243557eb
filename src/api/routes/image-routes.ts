import { EngineError } from '../../core/errors.ts';
import { isRunning } from '../../core/container-state.ts';
import { familiarString, imageReferenceFromParts, withDefaultTag } from '../../core/image-reference.ts';
import type { Engine } from '../../engine/engine.ts';
import type { ImageUsers, RemovedEntry } from '../../oci/image-removal.ts';
import { formatPlatform, parsePlatform } from '../../oci/platform-selection.ts';
import { pathParameter, type ApiRequest } from '../api-request.ts';
import { encodeHistory, encodeImageInspect, encodeImageSummary, encodeRemoved } from '../codecs/image.ts';
import { parseFilters, requireKnownFilters } from '../filters.ts';
import { danglingValue, selectImages } from '../image-filter.ts';
import { booleanParameter, textParameter } from '../query.ts';
import type { Route } from '../route.ts';

const imageName = (request: ApiRequest): string => pathParameter(request, 'name');

export const imageRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/images/json',
    handle(request, reply, { engine }) {
      const all = booleanParameter(request.query, 'all');
      const images = selectImages(engine.images, parseFilters(request.query), { all });
      reply.json(
        200,
        images.map((image) => encodeImageSummary(image, request.version, -1)),
      );
    },
  },
  {
    method: 'GET',
    path: '/images/search',
    handle() {
      throw new EngineError('unsupported', 'searching Docker Hub is not supported: pull images by name');
    },
  },
  {
    method: 'POST',
    path: '/images/prune',
    handle: async (request, reply, { engine }) => reply.json(200, await pruneImages(request, engine)),
  },
  {
    method: 'GET',
    path: '/images/{name}/json',
    handle(request, reply, { engine }) {
      const image = engine.images.resolve(imageName(request));
      refuseOtherPlatform(request, image.config);
      reply.json(200, encodeImageInspect(image, request.version));
    },
  },
  {
    method: 'GET',
    path: '/images/{name}/history',
    handle(request, reply, { engine }) {
      reply.json(200, encodeHistory(engine.images.history(engine.images.resolve(imageName(request)))));
    },
  },
  {
    method: 'POST',
    path: '/images/{name}/tag',
    handle(request, reply, { engine }) {
      const repository = textParameter(request.query, 'repo');
      if (repository === undefined) throw new EngineError('invalid-argument', 'invalid reference format');
      const target = withDefaultTag(imageReferenceFromParts(repository, textParameter(request.query, 'tag')));
      const image = engine.images.tag(imageName(request), target);
      engine.events.publish({
        type: 'image',
        action: 'tag',
        actorId: image.id,
        attributes: { name: familiarString(target) },
      });
      reply.empty(201);
    },
  },
  {
    method: 'DELETE',
    path: '/images/{name}',
    async handle(request, reply, { engine }) {
      const image = engine.images.resolve(imageName(request));
      const removed = await engine.images.remove(imageName(request), {
        force: booleanParameter(request.query, 'force'),
        prune: !booleanParameter(request.query, 'noprune'),
        isUsedBy: usersOf(engine),
      });
      publishRemoval(engine, image.id, removed);
      reply.json(200, encodeRemoved(removed));
    },
  },
];

/** Containers by image: what stands against a removal. */
function usersOf(engine: Engine): ImageUsers {
  return (imageId) =>
    engine.containers
      .list({ all: true, limit: 0, filters: new Map() })
      .filter((view) => view.imageId === imageId)
      .map((view) => ({ containerId: view.id, isRunning: isRunning(view.state) }));
}

function publishRemoval(engine: Engine, imageId: string, removed: readonly RemovedEntry[]): void {
  for (const entry of removed) {
    const [action, actorId] =
      'untagged' in entry ? (['untag', imageId] as const) : (['delete', entry.deleted] as const);
    engine.events.publish({ type: 'image', action, actorId, attributes: { name: actorId } });
  }
}

/** Unnamed images that no container uses; with `dangling=false` named ones too. */
async function pruneImages(request: ApiRequest, engine: Engine): Promise<Record<string, unknown>> {
  const filters = parseFilters(request.query);
  requireKnownFilters(filters, ['dangling', 'label', 'label!', 'until']);
  const onlyDangling = danglingValue(filters) ?? true;
  const others = new Map([...filters].filter(([key]) => key !== 'dangling'));
  const isUsedBy = usersOf(engine);
  const before = await engine.images.diskUsage();
  const removed: RemovedEntry[] = [];
  for (const image of selectImages(engine.images, others, { all: false })) {
    if (isUsedBy(image.id).length > 0 || (onlyDangling && image.repoTags.length > 0)) continue;
    // Names one by one: by its id, an image of several repositories could only be removed by force.
    const names = image.repoTags.length > 0 ? image.repoTags : [image.id];
    for (const name of names) {
      const entries = await engine.images.remove(name, { isUsedBy }).catch((error: unknown) => {
        // Others were built on it since the list was made, or a container was: it stays.
        if (error instanceof EngineError && (error.code === 'conflict' || error.code === 'not-found')) return [];
        throw error;
      });
      publishRemoval(engine, image.id, entries);
      removed.push(...entries);
    }
  }
  const after = await engine.images.diskUsage();
  const reclaimed = Math.max(0, before.blobBytes + before.layerBytes - after.blobBytes - after.layerBytes);
  engine.events.publish({ type: 'image', action: 'prune', actorId: '', attributes: { reclaimed: String(reclaimed) } });
  return { ImagesDeleted: removed.length > 0 ? encodeRemoved(removed) : null, SpaceReclaimed: reclaimed };
}

/** `platform` is a JSON object since 1.49. Only one platform of an image is kept. */
function refuseOtherPlatform(request: ApiRequest, config: { os: string; architecture: string }): void {
  const text = textParameter(request.query, 'platform');
  if (text === undefined) return;
  const wanted = parsePlatform(text.startsWith('{') ? platformText(text) : text);
  if (wanted.os === config.os && wanted.architecture === config.architecture) return;
  throw new EngineError(
    'not-found',
    `image with reference ${imageName(request)} was found but does not match the specified platform: wanted ${formatPlatform(wanted)}, actual: ${config.os}/${config.architecture}`,
  );
}

function platformText(json: string): string {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (error) {
    throw new EngineError('invalid-argument', 'invalid platform: not JSON', { cause: error });
  }
  const { os, architecture, variant } = value as Record<string, unknown>;
  return [os, architecture, variant].filter((part) => typeof part === 'string' && part !== '').join('/');
}
