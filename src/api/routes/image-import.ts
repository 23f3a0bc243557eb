import { EngineError } from '../../core/errors.ts';
import { familiarString, imageReferenceFromParts, withDefaultTag } from '../../core/image-reference.ts';
import type { Engine } from '../../engine/engine.ts';
import type { ApiReply } from '../api-reply.ts';
import type { ApiRequest } from '../api-request.ts';
import { JsonLineStream } from '../json-line-stream.ts';
import { textParameter } from '../query.ts';

/** `docker import`: a tar of a root file system becomes an image of one layer. */
export async function importImage(request: ApiRequest, reply: ApiReply, engine: Engine): Promise<void> {
  const source = textParameter(request.query, 'fromSrc');
  if (source === undefined)
    throw new EngineError('invalid-argument', 'neither fromImage nor fromSrc is given: nothing to pull or import');
  if (source !== '-') {
    throw new EngineError(
      'unsupported',
      `importing from ${source} is not supported: download it and send it with fromSrc=-`,
    );
  }
  if (request.query.getAll('changes').some((change) => change !== '')) {
    throw new EngineError(
      'unsupported',
      'changes at import are not supported: import without them and set the command at run',
    );
  }
  const repository = textParameter(request.query, 'repo');
  const target = repository && withDefaultTag(imageReferenceFromParts(repository, textParameter(request.query, 'tag')));
  const lines = new JsonLineStream(reply);
  const work = async (): Promise<void> => {
    await using held = await engine.images.ingestLayer(request.body, { signal: request.signal });
    const created = new Date().toISOString();
    const comment = textParameter(request.query, 'message') ?? 'Imported from -';
    const image = await engine.images.create({
      config: { architecture: 'amd64', os: 'linux', created, config: {}, history: [{ created, comment }] },
      layers: [held.layer],
      ...(target ? { tags: [target] } : {}),
    });
    const name = target ? familiarString(target) : image.id;
    engine.events.publish({ type: 'image', action: 'import', actorId: image.id, attributes: { name } });
    lines.send({ status: image.id });
  };
  await lines.finish(work());
}
