import { EngineError } from '../../core/errors.ts';
import { registryLoginSchema } from '../../wire/docker/registry-auth.ts';
import type { ApiReply } from '../api-reply.ts';
import { readJson, type ApiRequest } from '../api-request.ts';
import { encodeDiskUsage } from '../codecs/disk-usage.ts';
import { encodeEvent } from '../codecs/event.ts';
import { encodeInfo } from '../codecs/info.ts';
import { encodeVersion } from '../codecs/version.ts';
import { parseFilters } from '../filters.ts';
import { timestampParameter } from '../query.ts';
import type { Route } from '../route.ts';

const ANONYMOUS_LOGIN = { serverAddress: '', credentials: {} };

export const systemRoutes: readonly Route[] = [
  { method: 'OPTIONS', path: '/{path}', handle: (_request, reply) => reply.empty(200) },
  { method: 'HEAD', path: '/_ping', handle: ping },
  { method: 'GET', path: '/_ping', handle: ping },
  {
    method: 'GET',
    path: '/version',
    async handle(_request, reply, { engine, version }) {
      reply.json(200, encodeVersion(version, await engine.system.info()));
    },
  },
  {
    method: 'GET',
    path: '/info',
    async handle(_request, reply, { engine, version }) {
      reply.json(200, encodeInfo(version, await engine.system.info()));
    },
  },
  {
    method: 'GET',
    path: '/events',
    async handle(request, reply, { engine }) {
      const options = {
        sinceNs: timestampParameter(request.query, 'since'),
        untilNs: timestampParameter(request.query, 'until'),
        filters: parseFilters(request.query),
        signal: request.signal,
      };
      if (options.sinceNs !== undefined && options.untilNs !== undefined && options.untilNs < options.sinceNs) {
        throw new EngineError('invalid-argument', '`since` time cannot be after `until` time');
      }
      const events = engine.events.subscribe(options);
      reply.startStream();
      for await (const event of events) {
        if (request.signal.aborted) break;
        await reply.write(encodeEvent(event));
      }
      reply.end();
    },
  },
  {
    method: 'GET',
    path: '/system/df',
    async handle(request, reply, { engine }) {
      const types = request.query.getAll('type');
      const unknown = types.find((type) => !['container', 'image', 'volume', 'build-cache'].includes(type));
      if (unknown !== undefined) throw new EngineError('invalid-argument', `unknown object type: ${unknown}`);
      reply.json(200, await encodeDiskUsage(engine, request.version, types));
    },
  },
  {
    method: 'POST',
    path: '/auth',
    async handle(request, reply, { engine }) {
      const { serverAddress, credentials } = (await readJson(request, registryLoginSchema)) ?? ANONYMOUS_LOGIN;
      await engine.images.login(serverAddress, credentials, request.signal);
      reply.json(200, { Status: 'Login Succeeded', IdentityToken: '' });
    },
  },
  { method: 'GET', path: '/plugins', handle: (_request, reply) => reply.json(200, []) },
];

function ping(request: ApiRequest, reply: ApiReply): void {
  reply.header('Builder-Version', '1');
  reply.header('Swarm', 'inactive');
  reply.header('Cache-Control', 'no-cache, no-store, must-revalidate');
  reply.header('Pragma', 'no-cache');
  if (request.method === 'HEAD') reply.empty(200);
  else reply.text(200, 'OK');
}
