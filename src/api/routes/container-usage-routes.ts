import { setTimeout as delay } from 'node:timers/promises';
import { EngineError } from '../../core/errors.ts';
import type { Engine } from '../../engine/engine.ts';
import { containerUpdateSchema } from '../../wire/docker/container-update.ts';
import { checkRestartPolicy } from '../../wire/docker/container-create-checks.ts';
import type { ContainerStats } from '../../wire/shim-usage.ts';
import type { ApiReply } from '../api-reply.ts';
import { pathParameter, readJson, type ApiRequest } from '../api-request.ts';
import { encodeStats } from '../codecs/stats.ts';
import { booleanParameter, textParameter } from '../query.ts';
import type { Route } from '../route.ts';

/** Docker's rhythm: clients compute shares from two samples this far apart. */
const SAMPLE_INTERVAL_MS = 1_000;
const DEFAULT_PS_ARGUMENTS = '-ef';

const id = (request: ApiRequest): string => pathParameter(request, 'id');

export const containerUsageRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/containers/{id}/top',
    async handle(request, reply, { engine }) {
      const psArguments = textParameter(request.query, 'ps_args') || DEFAULT_PS_ARGUMENTS;
      const { titles, rows } = await engine.usage.top(id(request), psArguments);
      reply.json(200, { Titles: titles, Processes: rows });
    },
  },
  {
    method: 'GET',
    path: '/containers/{id}/stats',
    async handle(request, reply, { engine }) {
      const isStream = request.query.get('stream') === null || booleanParameter(request.query, 'stream');
      const isOneShot = booleanParameter(request.query, 'one-shot');
      if (isStream && isOneShot) {
        throw new EngineError('invalid-argument', 'cannot have stream=true and one-shot=true');
      }
      if (isStream) await streamStats(request, reply, engine);
      else await sendStats(request, reply, engine, isOneShot);
    },
  },
  {
    method: 'POST',
    path: '/containers/{id}/update',
    async handle(request, reply, { engine }) {
      const body = (await readJson(request, containerUpdateSchema)) ?? {};
      checkRestartPolicy(body.RestartPolicy);
      const { warnings } = await engine.containers.update(id(request), body);
      reply.json(200, { Warnings: warnings });
    },
  },
];

/** One answer. A share of the CPU needs two samples; who wants one only says so. */
async function sendStats(request: ApiRequest, reply: ApiReply, engine: Engine, isOneShot: boolean): Promise<void> {
  const view = engine.containers.inspect(id(request));
  const first = await engine.usage.stats(view.id);
  if (!first || isOneShot) {
    reply.json(200, encodeStats(view, first, undefined));
    return;
  }
  if (!(await paused(request))) return;
  reply.json(200, encodeStats(view, await engine.usage.stats(view.id), first));
}

/** A line a second until the client or the container goes; one that does not run has empty ones. */
async function streamStats(request: ApiRequest, reply: ApiReply, engine: Engine): Promise<void> {
  const { id: containerId } = engine.containers.inspect(id(request));
  let previous: ContainerStats | undefined;
  do {
    try {
      const sample = await engine.usage.stats(containerId);
      const line = encodeStats(engine.containers.inspect(containerId), sample, previous);
      reply.startStream();
      await reply.write(`${JSON.stringify(line)}\n`);
      previous = sample;
    } catch (error) {
      const isGone = error instanceof EngineError && error.code === 'not-found';
      if (!isGone || !reply.isStarted) throw error;
      break;
    }
  } while (await paused(request));
  reply.end();
}

/** False if the client has gone meanwhile. */
async function paused(request: ApiRequest): Promise<boolean> {
  try {
    await delay(SAMPLE_INTERVAL_MS, undefined, { signal: request.signal });
    return true;
  } catch {
    return false;
  }
}
