import { EngineError } from '../../core/errors.ts';
import { execCreateSchema, execStartSchema } from '../../wire/docker/exec.ts';
import { pathParameter, readJson } from '../api-request.ts';
import { isAtLeast } from '../api-version.ts';
import { decodeConsoleSize, decodeExecRequest, encodeExecInspect } from '../codecs/exec.ts';
import { terminalSize } from '../terminal-size.ts';
import type { Route } from '../route.ts';

/** Sizes in the bodies came with this version; in older ones they mean nothing. */
const CONSOLE_SIZE_SINCE = '1.42';

export const execRoutes: readonly Route[] = [
  {
    method: 'POST',
    path: '/containers/{id}/exec',
    async handle(request, reply, { engine }) {
      const body = await readJson(request, execCreateSchema);
      if (body === undefined) throw new EngineError('invalid-argument', 'No exec command specified');
      const ConsoleSize = isAtLeast(request.version, CONSOLE_SIZE_SINCE) ? body.ConsoleSize : null;
      const decoded = decodeExecRequest({ ...body, ConsoleSize });
      const { id } = await engine.execs.create(pathParameter(request, 'id'), decoded);
      reply.json(201, { Id: id });
    },
  },
  {
    method: 'POST',
    path: '/exec/{id}/start',
    async hijack(request, { engine }) {
      const body = await readJson(request, execStartSchema);
      const size = isAtLeast(request.version, CONSOLE_SIZE_SINCE) ? decodeConsoleSize(body?.ConsoleSize) : undefined;
      return engine.execs.start(pathParameter(request, 'id'), { detach: body?.Detach ?? false, size });
    },
  },
  {
    method: 'POST',
    path: '/exec/{id}/resize',
    async handle(request, reply, { engine }) {
      await engine.execs.resize(pathParameter(request, 'id'), terminalSize(request));
      reply.empty(200);
    },
  },
  {
    method: 'GET',
    path: '/exec/{id}/json',
    handle(request, reply, { engine }) {
      reply.json(200, encodeExecInspect(engine.execs.inspect(pathParameter(request, 'id'))));
    },
  },
];
