import { ApiError } from '../../client/index.ts';
import { defineCommand, printLine } from '../command.ts';
import { forEachNameInOrder } from './for-each-name.ts';

export const rmiCommand = defineCommand({
  usage: '[OPTIONS] IMAGE [IMAGE...]',
  flags: {
    force: { kind: 'boolean', short: 'f', summary: 'Force removal of the image' },
    'no-prune': { kind: 'boolean', summary: 'Do not delete untagged parents' },
    platform: { kind: 'words', summary: 'Remove only the given platform variant', value: 'os[/arch[/variant]]' },
  },
  arity: { min: 1 },
  async run(context, flags, images) {
    const force = flags.force ?? false;
    await forEachNameInOrder(context, images, async (image) => {
      try {
        const deleted = await context.client().images.remove(image, {
          force,
          noPrune: flags['no-prune'] ?? false,
          platforms: flags.platform.map(platformJson),
        });
        for (const { Untagged, Deleted } of deleted)
          printLine(context.stdout, Deleted ? `Deleted: ${Deleted}` : `Untagged: ${Untagged ?? ''}`);
      } catch (error) {
        if (!(force && error instanceof ApiError && error.status === 404)) throw error;
        printLine(context.stderr, `Error response from daemon: ${error.message}`);
      }
    });
  },
});

/** `linux/amd64` as the API wants a platform. */
function platformJson(text: string): string {
  const [os = '', architecture = '', variant] = text.split('/');
  return JSON.stringify({ os, architecture, ...(variant === undefined ? {} : { variant }) });
}
