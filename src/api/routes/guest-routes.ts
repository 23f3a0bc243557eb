import { once } from 'node:events';
import { EngineError } from '../../core/errors.ts';
import {
  guestAllocationSchema,
  guestExecSchema,
  guestLaunchSchema,
  type GuestLaunchMessage,
} from '../../wire/guest.ts';
import { pathParameter, readJson, type ApiRequest } from '../api-request.ts';
import { JsonLineStream } from '../json-line-stream.ts';
import { booleanParameter, integerParameter, textParameter } from '../query.ts';
import type { Route } from '../route.ts';

/** Our own part of the API: guest operating systems. The API server's versions are Docker's and mean nothing here. */
const GUESTS = '/bulkhead/guests';
const IMAGES = '/bulkhead/guest-images';

export const guestRoutes: readonly Route[] = [
  {
    method: 'POST',
    path: `${GUESTS}/launch`,
    async handle(request, reply, { engine }) {
      const body = await readJson(request, guestLaunchSchema);
      if (body === undefined) throw new EngineError('invalid-argument', 'a launch needs a body that names an image');
      const stream = new JsonLineStream(reply);
      const send = (message: GuestLaunchMessage): void => stream.send(message);
      const launch = engine.guests.launch(body, (phase, text) => send({ phase, text }), request.signal);
      await stream.finish(launch.then((guest) => send({ guest })));
    },
  },
  { method: 'GET', path: GUESTS, handle: (_request, reply, { engine }) => reply.json(200, engine.guests.list()) },
  {
    method: 'POST',
    path: `${GUESTS}/{name}/start`,
    async handle(request, reply, { engine }) {
      reply.json(200, await engine.guests.start(pathParameter(request, 'name')));
    },
  },
  {
    method: 'POST',
    path: `${GUESTS}/{name}/stop`,
    async handle(request, reply, { engine }) {
      const force = booleanParameter(request.query, 'force');
      const timeoutSeconds = integerParameter(request.query, 'timeout');
      reply.json(200, await engine.guests.stop(pathParameter(request, 'name'), { force, timeoutSeconds }));
    },
  },
  {
    method: 'POST',
    path: `${GUESTS}/{name}/restart`,
    async handle(request, reply, { engine }) {
      const force = booleanParameter(request.query, 'force');
      const timeoutSeconds = integerParameter(request.query, 'timeout');
      reply.json(200, await engine.guests.restart(pathParameter(request, 'name'), { force, timeoutSeconds }));
    },
  },
  {
    method: 'POST',
    path: `${GUESTS}/{name}/set`,
    async handle(request, reply, { engine }) {
      const body = await readJson(request, guestAllocationSchema);
      if (body === undefined) throw new EngineError('invalid-argument', 'nothing was named that should change');
      reply.json(200, await engine.guests.allocate(pathParameter(request, 'name'), body));
    },
  },
  {
    method: 'GET',
    path: `${GUESTS}/{name}/file`,
    async handle(request, reply, { engine }) {
      const content = engine.guests.readFile(pathParameter(request, 'name'), filePath(request));
      // Its first piece before the status: a file that cannot be opened is an ordinary error.
      const first = await once(content, 'readable').then(() => content.read() as Buffer | null);
      if (first !== null) content.unshift(first);
      await reply.sendBytes(content, 'application/octet-stream', request.signal);
    },
  },
  {
    method: 'PUT',
    path: `${GUESTS}/{name}/file`,
    async handle(request, reply, { engine }) {
      await engine.guests.writeFile(pathParameter(request, 'name'), filePath(request), request.body);
      reply.empty(204);
    },
  },
  {
    method: 'POST',
    path: `${GUESTS}/{name}/exec`,
    async handle(request, reply, { engine }) {
      const body = await readJson(request, guestExecSchema);
      if (body === undefined) throw new EngineError('invalid-argument', 'no command was named');
      const input = body.input === undefined ? undefined : Buffer.from(body.input, 'base64');
      const spec = { command: body.command, env: body.env ?? [], input };
      reply.json(200, await engine.guests.exec(pathParameter(request, 'name'), spec, request.signal));
    },
  },
  {
    method: 'GET',
    path: `${GUESTS}/{name}/log`,
    async handle(request, reply, { engine }) {
      const follow = booleanParameter(request.query, 'follow');
      const log = await engine.guests.consoleLog(pathParameter(request, 'name'), { follow }, request.signal);
      await reply.sendBytes(log, 'application/octet-stream', request.signal);
    },
  },
  {
    method: 'POST',
    path: `${GUESTS}/{name}/console`,
    hijack: (request, { engine }) => engine.guests.attachConsole(pathParameter(request, 'name')),
  },
  {
    method: 'GET',
    path: `${GUESTS}/{name}`,
    handle: (request, reply, { engine }) => reply.json(200, engine.guests.inspect(pathParameter(request, 'name'))),
  },
  {
    method: 'DELETE',
    path: `${GUESTS}/{name}`,
    async handle(request, reply, { engine }) {
      const force = booleanParameter(request.query, 'force');
      await engine.guests.delete(pathParameter(request, 'name'), { force });
      reply.empty(204);
    },
  },
  {
    method: 'GET',
    path: IMAGES,
    async handle(_request, reply, { engine }) {
      reply.json(200, await engine.guests.listImages());
    },
  },
  {
    method: 'POST',
    path: `${IMAGES}/{name}/import`,
    async handle(request, reply, { engine }) {
      const { body, signal } = request;
      reply.json(201, await engine.guests.importImage(pathParameter(request, 'name'), body, signal));
    },
  },
  {
    method: 'DELETE',
    path: `${IMAGES}/{name}`,
    async handle(request, reply, { engine }) {
      await engine.guests.removeImage(pathParameter(request, 'name'));
      reply.empty(204);
    },
  },
];

function filePath(request: ApiRequest): string {
  const path = textParameter(request.query, 'path');
  if (path?.startsWith('/') === true) return path;
  throw new EngineError('invalid-argument', `${path ?? 'nothing'} is no path in a guest; it begins with a slash`);
}
