import type { Route } from '../route.ts';
import { containerRoutes } from './container-routes.ts';
import { containerStreamRoutes } from './container-stream-routes.ts';
import { containerUsageRoutes } from './container-usage-routes.ts';
import { execRoutes } from './exec-routes.ts';
import { guestRoutes } from './guest-routes.ts';
import { imageRoutes } from './image-routes.ts';
import { imageTransferRoutes } from './image-transfer-routes.ts';
import { networkRoutes } from './network-routes.ts';
import { swarmRoutes } from './swarm-routes.ts';
import { systemRoutes } from './system-routes.ts';
import { volumeRoutes } from './volume-routes.ts';

/** Every endpoint there is. What is not here is `404 page not found`, as on a daemon that does not know it. */
export const allRoutes: readonly Route[] = [
  ...systemRoutes,
  ...execRoutes,
  ...containerStreamRoutes,
  ...containerUsageRoutes,
  ...containerRoutes,
  ...imageTransferRoutes,
  ...imageRoutes,
  ...networkRoutes,
  ...volumeRoutes,
  ...swarmRoutes,
  ...guestRoutes,
];
