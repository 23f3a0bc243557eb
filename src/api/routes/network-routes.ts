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
];
