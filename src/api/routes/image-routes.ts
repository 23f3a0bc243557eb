import { EngineError } from '../../core/errors.ts';
import { imageReferenceFromParts, withDefaultTag } from '../../core/image-reference.ts';
import { formatPlatform, parsePlatform } from '../../oci/platform-selection.ts';
import { pathParameter, type ApiRequest } from '../api-request.ts';
import { encodeHistory, encodeImageInspect, encodeImageSummary, encodeRemoved } from '../codecs/image.ts';
import { parseFilters } from '../filters.ts';
import { booleanParameter, textParameter } from '../query.ts';
import type { Route } from '../route.ts';

const imageName = (request: ApiRequest): string => pathParameter(request, 'name');

export const imageRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/images/json',
    handle(request, reply, { engine }) {
      const all = booleanParameter(request.query, 'all');
      const images = engine.images.list({ all, filters: parseFilters(request.query) });
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
    async handle(request, reply, { engine }) {
      const { removed, reclaimedBytes } = await engine.images.prune(parseFilters(request.query));
      reply.json(200, {
        ImagesDeleted: removed.length > 0 ? encodeRemoved(removed) : null,
        SpaceReclaimed: reclaimedBytes,
      });
    },
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
      engine.images.tag(imageName(request), target);
      reply.empty(201);
    },
  },
  {
    method: 'DELETE',
    path: '/images/{name}',
    async handle(request, reply, { engine }) {
      const removed = await engine.images.remove(imageName(request), {
        force: booleanParameter(request.query, 'force'),
        prune: !booleanParameter(request.query, 'noprune'),
      });
      reply.json(200, encodeRemoved(removed));
    },
  },
];

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
