import { defineCommand } from '../command.ts';
import { UsageError } from '../flags/parse-flags.ts';
import { parseImageName } from '../registry/image-name.ts';

export const tagCommand = defineCommand({
  usage: 'SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]',
  flags: {},
  arity: { min: 2, max: 2 },
  async run(context, _flags, [source = '', target = '']) {
    const name = parseImageName(target);
    if (name.digest !== undefined) throw new UsageError('refusing to create a tag with a digest reference');
    await context.client().images.tag(source, name.repository, name.tag ?? 'latest');
  },
});
