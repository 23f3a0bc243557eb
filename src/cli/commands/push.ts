import { defineCommand, printLine } from '../command.ts';
import { UsageError } from '../flags/parse-flags.ts';
import { loadRegistryAuth } from '../registry/credentials.ts';
import { parseImageName } from '../registry/image-name.ts';
import { renderProgress } from '../render/progress.ts';

export const pushCommand = defineCommand({
  usage: '[OPTIONS] NAME[:TAG]',
  flags: {
    'all-tags': { kind: 'boolean', short: 'a', summary: 'Push all tags of an image to the repository' },
    'disable-content-trust': { kind: 'boolean', summary: 'Skip image signing', hidden: true },
    platform: {
      kind: 'string',
      summary: 'Push a platform-specific manifest as a single-platform image to the registry',
      value: 'os[/arch[/variant]]',
    },
    quiet: { kind: 'boolean', short: 'q', summary: 'Suppress verbose output' },
  },
  arity: { min: 1, max: 1 },
  async run(context, flags, [image = '']) {
    const name = parseImageName(image);
    const allTags = flags['all-tags'] ?? false;
    const quiet = flags.quiet ?? false;
    if (name.digest !== undefined) throw new UsageError('cannot push a digest reference');
    if (allTags && name.tag !== undefined) throw new UsageError("tag can't be used with --all-tags/-a");
    const tag = allTags ? undefined : (name.tag ?? 'latest');
    if (tag === 'latest' && name.tag === undefined && !quiet) printLine(context.stdout, 'Using default tag: latest');
    const [os, architecture, variant] = flags.platform?.split('/') ?? [];
    const messages = await context.client().images.push(name.repository, {
      tag,
      platform: os === undefined ? undefined : JSON.stringify({ os, architecture, variant }),
      auth: await loadRegistryAuth(context.configDirectory, name.registry),
    });
    await renderProgress(messages, quiet ? undefined : context.stdout);
    if (quiet)
      printLine(
        context.stdout,
        `${name.registry === 'docker.io' && !name.repository.startsWith('docker.io/') ? `docker.io/${name.repository.includes('/') ? '' : 'library/'}` : ''}${name.repository}${tag === undefined ? '' : `:${tag}`}`,
      );
  },
});
