import { EngineError } from '../../core/errors.ts';
import { imageReferenceFromParts, withDefaultTag } from '../../core/image-reference.ts';
import { decodeRegistryAuth } from '../../wire/docker/registry-auth.ts';
import { describeLoadedImage } from '../../oci/image-load.ts';
import { parsePlatform } from '../../oci/platform-selection.ts';
import { describePullProgress, describePushProgress } from '../../oci/progress.ts';
import type { Engine } from '../../engine/engine.ts';
import type { ApiReply } from '../api-reply.ts';
import { pathParameter, type ApiRequest } from '../api-request.ts';
import { JsonLineStream } from '../json-line-stream.ts';
import { textParameter } from '../query.ts';
import type { Route } from '../route.ts';
import { importImage } from './image-import.ts';

const TAR_TYPE = 'application/x-tar';

export const imageTransferRoutes: readonly Route[] = [
  {
    method: 'POST',
    path: '/images/create',
    async handle(request, reply, { engine }) {
      if (textParameter(request.query, 'fromImage') !== undefined) await pull(request, reply, engine);
      else await importImage(request, reply, engine);
    },
  },
  {
    method: 'POST',
    path: '/images/load',
    async handle(request, reply, { engine }) {
      const lines = new JsonLineStream(reply);
      const load = async (): Promise<void> => {
        const loaded = await engine.images.load(request.body, { signal: request.signal });
        for (const stream of loaded.flatMap(describeLoadedImage)) lines.send({ stream });
      };
      await lines.finish(load());
    },
  },
  {
    method: 'GET',
    path: '/images/get',
    handle: (request, reply, { engine }) =>
      save(
        request,
        reply,
        engine,
        request.query.getAll('names').flatMap((names) => names.split(',')),
      ),
  },
  {
    method: 'GET',
    path: '/images/{name}/get',
    handle: (request, reply, { engine }) => save(request, reply, engine, [pathParameter(request, 'name')]),
  },
  {
    method: 'POST',
    path: '/images/{name}/push',
    async handle(request, reply, { engine }) {
      const reference = imageReferenceFromParts(pathParameter(request, 'name'), textParameter(request.query, 'tag'));
      const lines = new JsonLineStream(reply);
      const push = async (): Promise<void> => {
        await engine.images.push(reference, {
          auth: registryAuth(request),
          signal: request.signal,
          onProgress: (event) =>
            describePushProgress(event).forEach((line) => lines.send(line, { isPassing: event.type === 'pushing' })),
        });
      };
      await lines.finish(push());
    },
  },
];

async function pull(request: ApiRequest, reply: ApiReply, engine: Engine): Promise<void> {
  const name = textParameter(request.query, 'fromImage') ?? '';
  const reference = withDefaultTag(
    imageReferenceFromParts(name.replace(/:$/, ''), textParameter(request.query, 'tag')),
  );
  const platform = textParameter(request.query, 'platform');
  const lines = new JsonLineStream(reply);
  const work = async (): Promise<void> => {
    await engine.images.pull(reference, {
      ...(platform === undefined ? {} : { platform: parsePlatform(platform) }),
      auth: registryAuth(request),
      signal: request.signal,
      onProgress: (event) => {
        const isPassing = event.type === 'downloading' || event.type === 'extracting';
        lines.send(describePullProgress(event), { isPassing });
      },
    });
  };
  await lines.finish(work());
}

async function save(request: ApiRequest, reply: ApiReply, engine: Engine, names: readonly string[]): Promise<void> {
  if (names.length === 0) throw new EngineError('invalid-argument', 'no images to save: give at least one name');
  await reply.sendBytes(engine.images.save(names), TAR_TYPE, request.signal);
}

function registryAuth(request: ApiRequest): ReturnType<typeof decodeRegistryAuth> {
  const header = request.incoming.headers['x-registry-auth'];
  return decodeRegistryAuth(Array.isArray(header) ? header[0] : header);
}
