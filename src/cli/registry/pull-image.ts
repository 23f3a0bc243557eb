import type { Writable } from 'node:stream';
import type { CommandContext } from '../command.ts';
import { loadRegistryAuth } from './credentials.ts';
import { parseImageName, tagOrDigest } from './image-name.ts';
import { renderProgress } from '../render/progress.ts';

export interface PullOptions {
  readonly platform: string | undefined;
  readonly quiet: boolean;
  readonly allTags?: boolean;
  /** Where the progress goes: stdout of `pull`, stderr of `run`. */
  readonly sink: Writable & { readonly isTTY?: boolean };
}

/** Fetches an image; throws when the daemon reports a failure in the middle of the stream. */
export async function pullImage(context: CommandContext, image: string, options: PullOptions): Promise<void> {
  const name = parseImageName(image);
  const messages = await context.client().images.pull(name.repository, {
    tag: tagOrDigest(name, options.allTags ?? false),
    platform: options.platform,
    auth: await loadRegistryAuth(context.configDirectory, name.registry),
  });
  await renderProgress(messages, options.quiet ? undefined : options.sink);
}
