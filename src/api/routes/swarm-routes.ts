import { EngineError } from '../../core/errors.ts';
import type { Method, Route } from '../route.ts';

/** Texts and statuses of a dockerd outside any swarm (moby daemon/cluster/cluster.go): compose v1 wants an error of `GET /nodes`, no hang. */
const NOT_A_MANAGER =
  'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.';

const METHODS: readonly Method[] = ['GET', 'POST', 'PUT', 'DELETE'];
const FAMILIES = ['/nodes', '/services', '/tasks', '/secrets', '/configs'];

function refuse(code: 'unavailable' | 'unsupported', message: string): () => never {
  return () => {
    throw new EngineError(code, message);
  };
}

export const swarmRoutes: readonly Route[] = [
  { method: 'POST', path: '/swarm/init', handle: refuse('unsupported', 'swarm mode is not supported') },
  { method: 'POST', path: '/swarm/join', handle: refuse('unsupported', 'swarm mode is not supported') },
  { method: 'POST', path: '/swarm/leave', handle: refuse('unavailable', 'This node is not part of a swarm') },
  ...['/swarm', '/swarm/unlockkey'].map((path): Route => ({
    method: 'GET',
    path,
    handle: refuse('unavailable', NOT_A_MANAGER),
  })),
  ...['/swarm/update', '/swarm/unlock'].map((path): Route => ({
    method: 'POST',
    path,
    handle: refuse('unavailable', NOT_A_MANAGER),
  })),
  ...METHODS.flatMap((method) =>
    FAMILIES.flatMap((family) =>
      [family, `${family}/{rest}`].map((path): Route => ({
        method,
        path,
        handle: refuse('unavailable', NOT_A_MANAGER),
      })),
    ),
  ),
];
