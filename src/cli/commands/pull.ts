import { defineCommand, printLine } from '../command.ts';
import { UsageError } from '../flags/parse-flags.ts';
import { parseImageName } from '../registry/image-name.ts';
import { pullImage } from '../registry/pull-image.ts';

export const pullCommand = defineCommand({
  usage: '[OPTIONS] NAME[:TAG|@DIGEST]',
  flags: {
    'all-tags': { kind: 'boolean', short: 'a', summary: 'Download all tagged images in the repository' },
    'disable-content-trust': { kind: 'boolean', summary: 'Skip image verification', hidden: true },
    platform: { kind: 'string', summary: 'Set platform if server is multi-platform capable' },
    quiet: { kind: 'boolean', short: 'q', summary: 'Suppress verbose output' },
  },
  arity: { min: 1, max: 1 },
  async run(context, flags, [image = '']) {
    const name = parseImageName(image);
    const allTags = flags['all-tags'] ?? false;
    const quiet = flags.quiet ?? false;
    if (allTags && (name.tag !== undefined || name.digest !== undefined))
      throw new UsageError("tag can't be used with --all-tags/-a");
    const isUntagged = !allTags && name.tag === undefined && name.digest === undefined;
    if (isUntagged && !quiet) printLine(context.stdout, 'Using default tag: latest');
    await pullImage(context, image, { platform: flags.platform, quiet, allTags, sink: context.stdout });
    printLine(
      context.stdout,
      qualify(name.registry, name.repository) +
        (name.digest === undefined ? (allTags ? '' : `:${name.tag ?? 'latest'}`) : `@${name.digest}`),
    );
  },
});

/** The whole name, as Docker ends a pull: `docker.io/library/alpine`. */
function qualify(registry: string, repository: string): string {
  if (repository.startsWith(`${registry}/`))
    return repository.includes('/', registry.length + 1) || registry !== 'docker.io'
      ? repository
      : repository.replace('/', '/library/');
  return `${registry}/${repository.includes('/') ? repository : `library/${repository}`}`;
}
