import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { ApiError } from '../../client/index.ts';
import type { ContainerCreateRequest } from '../../wire/docker/container-config.ts';
import { printLine, type CommandContext } from '../command.ts';
import { UsageError } from '../flags/parse-flags.ts';

export interface CreateOptions {
  readonly name: string | undefined;
  readonly platform: string | undefined;
  /** `missing` (default), `always`, `never`. */
  readonly pull: string | undefined;
  /** Without the pull's progress. */
  readonly quiet: boolean;
  readonly cidFile: string | undefined;
}

/** Creates a container; fetches its image first where it must be. Warnings and progress go to stderr, because stdout is the id's or the program's. */
export async function createContainer(
  context: CommandContext,
  request: ContainerCreateRequest,
  options: CreateOptions,
): Promise<{ Id: string; Warnings: string[] }> {
  const policy = options.pull ?? 'missing';
  if (!['always', 'missing', 'never'].includes(policy)) {
    throw new UsageError(`invalid pull option: '${policy}': must be one of "always", "missing" or "never"`);
  }
  reserveCidFile(options.cidFile);
  const client = context.client();
  const pull = async (): Promise<void> => {
    const { pullImage } = await import('../registry/pull-image.ts');
    await pullImage(context, request.Image ?? '', {
      platform: options.platform,
      quiet: options.quiet,
      sink: context.stderr,
    });
  };
  const create = () => client.containers.create(request, { name: options.name, platform: options.platform });
  try {
    if (policy === 'always') await pull();
    const created = await create().catch(async (error: unknown) => {
      if (policy !== 'missing' || !isMissingImage(error)) throw error;
      if (!options.quiet)
        printLine(context.stderr, `Unable to find image '${withDefaultTag(request.Image ?? '')}' locally`);
      await pull();
      return create();
    });
    for (const warning of created.Warnings) printLine(context.stderr, `WARNING: ${warning}`);
    if (options.cidFile !== undefined) writeFileSync(options.cidFile, created.Id);
    return created;
  } catch (error) {
    if (options.cidFile !== undefined) rmSync(options.cidFile, { force: true });
    throw error;
  }
}

function reserveCidFile(path: string | undefined): void {
  if (path === undefined) return;
  if (existsSync(path))
    throw new UsageError(`container ID file found, make sure the other container isn't running or delete ${path}`);
  try {
    writeFileSync(path, '', { flag: 'wx' });
  } catch (error) {
    throw new UsageError(
      `failed to create the container ID file: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}

/** 404 from create is about the image, a network or a volume; only the first is cured by a pull, and only the text tells them apart. */
function isMissingImage(error: unknown): boolean {
  return error instanceof ApiError && error.status === 404 && /no such image/i.test(error.message);
}

function withDefaultTag(image: string): string {
  if (image.includes('@') || image.slice(image.lastIndexOf('/') + 1).includes(':')) return image;
  return `${image}:latest`;
}
