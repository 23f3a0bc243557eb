import { checkContainerCreate, checkContainerName } from '../../wire/docker/container-create-checks.ts';
import { containerCreateSchema } from '../../wire/docker/container-config.ts';
import { EngineError } from '../../core/errors.ts';
import { pathParameter, readJson, type ApiRequest } from '../api-request.ts';
import { isAtLeast } from '../api-version.ts';
import { encodeContainerInspect } from '../codecs/container-inspect.ts';
import { encodeContainerSummary } from '../codecs/container-list.ts';
import { parseFilters, requireKnownFilters } from '../filters.ts';
import { booleanParameter, integerParameter, textParameter } from '../query.ts';
import { terminalSize } from '../terminal-size.ts';
import type { Route } from '../route.ts';

/** Bytes that old clients send as an empty HostConfig (`null`, `{}`, line ends) with start; more means one that would be ignored. */
const START_BODY_LIMIT_BYTES = 7;

const id = (request: ApiRequest): string => pathParameter(request, 'id');

function stopOptions(request: ApiRequest): { timeoutSeconds: number | undefined; signal: string | undefined } {
  return { timeoutSeconds: integerParameter(request.query, 't'), signal: textParameter(request.query, 'signal') };
}

export const containerRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/containers/json',
    async handle(request, reply, { engine }) {
      const views = engine.containers.list({
        all: booleanParameter(request.query, 'all'),
        limit: integerParameter(request.query, 'limit') ?? 0,
        filters: parseFilters(request.query),
      });
      const nowMs = Date.now();
      const sizes = booleanParameter(request.query, 'size')
        ? await Promise.all(views.map((view) => engine.usage.sizes(view.id).catch(() => undefined)))
        : [];
      reply.json(
        200,
        views.map((view, index) => encodeContainerSummary(view, request.version, nowMs, sizes[index])),
      );
    },
  },
  {
    method: 'POST',
    path: '/containers/create',
    async handle(request, reply, { engine }) {
      const body = await readJson(request, containerCreateSchema);
      const name = checkContainerName(textParameter(request.query, 'name'));
      const allowsSeveralNetworks = isAtLeast(request.version, '1.44');
      const checked = checkContainerCreate(body, { allowsSeveralNetworks });
      const { id: created, warnings } = await engine.containers.create(adapt(checked, request), name);
      reply.json(201, { Id: created, Warnings: warnings });
    },
  },
  {
    method: 'POST',
    path: '/containers/prune',
    async handle(request, reply, { engine }) {
      const filters = parseFilters(request.query);
      requireKnownFilters(filters, ['label', 'label!', 'until']);
      const { deleted, reclaimedBytes } = await engine.containers.prune(filters);
      reply.json(200, { ContainersDeleted: deleted, SpaceReclaimed: reclaimedBytes });
    },
  },
  {
    method: 'GET',
    path: '/containers/{id}/json',
    async handle(request, reply, { engine }) {
      const view = engine.containers.inspect(id(request));
      const sizes = booleanParameter(request.query, 'size') ? await engine.usage.sizes(view.id) : undefined;
      reply.json(200, encodeContainerInspect(view, request.version, sizes));
    },
  },
  {
    method: 'POST',
    path: '/containers/{id}/start',
    async handle(request, reply, { engine }) {
      const { headers } = request.incoming;
      if (
        Number(headers['content-length'] ?? 0) > START_BODY_LIMIT_BYTES ||
        headers['transfer-encoding'] !== undefined
      ) {
        throw new EngineError(
          'invalid-argument',
          'starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24',
        );
      }
      reply.empty((await engine.containers.start(id(request))) === 'started' ? 204 : 304);
    },
  },
  {
    method: 'POST',
    path: '/containers/{id}/stop',
    async handle(request, reply, { engine }) {
      reply.empty((await engine.containers.stop(id(request), stopOptions(request))) === 'stopped' ? 204 : 304);
    },
  },
  {
    method: 'POST',
    path: '/containers/{id}/restart',
    async handle(request, reply, { engine }) {
      await engine.containers.restart(id(request), stopOptions(request));
      reply.empty(204);
    },
  },
  {
    method: 'POST',
    path: '/containers/{id}/kill',
    async handle(request, reply, { engine }) {
      await engine.containers.kill(id(request), textParameter(request.query, 'signal'));
      reply.empty(204);
    },
  },
  {
    method: 'POST',
    path: '/containers/{id}/pause',
    async handle(request, reply, { engine }) {
      await engine.containers.pause(id(request));
      reply.empty(204);
    },
  },
  {
    method: 'POST',
    path: '/containers/{id}/unpause',
    async handle(request, reply, { engine }) {
      await engine.containers.unpause(id(request));
      reply.empty(204);
    },
  },
  {
    method: 'POST',
    path: '/containers/{id}/resize',
    async handle(request, reply, { engine }) {
      await engine.containers.resize(id(request), terminalSize(request));
      reply.empty(200);
    },
  },
  {
    method: 'POST',
    path: '/containers/{id}/rename',
    async handle(request, reply, { engine }) {
      const name = checkContainerName(textParameter(request.query, 'name'));
      if (name === undefined) throw new EngineError('invalid-argument', 'Neither old nor new names may be empty');
      await engine.containers.rename(id(request), name);
      reply.empty(204);
    },
  },
  {
    method: 'DELETE',
    path: '/containers/{id}',
    async handle(request, reply, { engine }) {
      if (booleanParameter(request.query, 'link')) {
        throw new EngineError(
          'unsupported',
          'legacy links are not supported: use a network, containers find each other by name there',
        );
      }
      await engine.containers.remove(id(request), {
        force: booleanParameter(request.query, 'force'),
        removeVolumes: booleanParameter(request.query, 'v'),
      });
      reply.empty(204);
    },
  },
];

/** What the request's API version means for its body: fields that it did not have yet are taken out. */
function adapt<T extends { HostConfig?: Record<string, unknown> | null | undefined }>(body: T, request: ApiRequest): T {
  if (isAtLeast(request.version, '1.42') || !body.HostConfig) return body;
  return { ...body, HostConfig: { ...body.HostConfig, ConsoleSize: null } };
}
