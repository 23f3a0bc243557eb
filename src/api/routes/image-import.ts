import { EngineError } from '../../core/errors.ts';
import { imageReferenceFromParts, withDefaultTag } from '../../core/image-reference.ts';
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
  const target =
    repository === undefined
      ? undefined
      : withDefaultTag(imageReferenceFromParts(repository, textParameter(request.query, 'tag')));
  const lines = new JsonLineStream(reply);
  const work = async (): Promise<void> => {
    const comment = textParameter(request.query, 'message') ?? 'Imported from -';
    const image = await engine.images.import(request.body, { target, comment, signal: request.signal });
    lines.send({ status: image.id });
  };
  await lines.finish(work());
}
