import { EngineError } from '../../core/errors.ts';
import { pathParameter, readJson } from '../api-request.ts';
import { parseFilters, requireKnownFilters } from '../filters.ts';
import { volumeCreateSchema } from '../../wire/docker/volume-create.ts';
import type { Route } from '../route.ts';

const NOT_YET = 'this version of Bulkhead has no volumes yet; --tmpfs works';

export const volumeRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/volumes',
    handle(request, reply) {
      requireKnownFilters(parseFilters(request.query), ['dangling', 'name', 'driver', 'label']);
      reply.json(200, { Volumes: [], Warnings: [] });
    },
  },
  {
    method: 'POST',
    path: '/volumes/create',
    async handle(request) {
      await readJson(request, volumeCreateSchema);
      throw new EngineError('unsupported', NOT_YET);
    },
  },
  {
    method: 'POST',
    path: '/volumes/prune',
    handle(request, reply) {
      requireKnownFilters(parseFilters(request.query), ['label', 'label!', 'all']);
      reply.json(200, { VolumesDeleted: [], SpaceReclaimed: 0 });
    },
  },
  { method: 'GET', path: '/volumes/{name}', handle: (request) => noSuchVolume(pathParameter(request, 'name')) },
  { method: 'DELETE', path: '/volumes/{name}', handle: (request) => noSuchVolume(pathParameter(request, 'name')) },
  {
    method: 'PUT',
    path: '/volumes/{name}',
    handle() {
      throw new EngineError('unavailable', 'cluster volumes need a swarm, and this node is not part of one');
    },
  },
];

function noSuchVolume(name: string): never {
  throw new EngineError('not-found', `get ${name}: no such volume`);
}
