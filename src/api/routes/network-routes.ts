import { EngineError } from '../../core/errors.ts';
import { pathParameter } from '../api-request.ts';
import { encodeNetwork } from '../codecs/network.ts';
import { parseFilters } from '../filters.ts';
import type { OrdinaryRoute, Route } from '../route.ts';

const listNetworks: OrdinaryRoute['handle'] = (request, reply, { engine }) => {
  const networks = engine.networks.list(parseFilters(request.query));
  // Endpoints are told by inspect only, as in Docker since API 1.28.
  reply.json(
    200,
    networks.map((network) => encodeNetwork({ ...network, endpoints: {} })),
  );
};

const notYet: OrdinaryRoute['handle'] = () => {
  throw new EngineError(
    'unsupported',
    'this version of Bulkhead has no networks beyond bridge and none yet; containers on bridge reach each other by IP address',
  );
};

export const networkRoutes: readonly Route[] = [
  { method: 'GET', path: '/networks', handle: listNetworks },
  { method: 'GET', path: '/networks/', handle: listNetworks },
  {
    method: 'GET',
    path: '/networks/{id}',
    handle(request, reply, { engine }) {
      reply.json(200, encodeNetwork(engine.networks.inspect(pathParameter(request, 'id'))));
    },
  },
  {
    method: 'DELETE',
    path: '/networks/{id}',
    handle(request, _reply, { engine }) {
      const { name } = engine.networks.inspect(pathParameter(request, 'id'));
      throw new EngineError('forbidden', `${name} is a pre-defined network and cannot be removed`);
    },
  },
  // Nothing but predefined networks: there is never one to prune.
  { method: 'POST', path: '/networks/prune', handle: (_request, reply) => reply.json(200, { NetworksDeleted: null }) },
  { method: 'POST', path: '/networks/create', handle: notYet },
  { method: 'POST', path: '/networks/{id}/connect', handle: notYet },
  { method: 'POST', path: '/networks/{id}/disconnect', handle: notYet },
];
