import { open, rename, rm, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { EngineError, systemErrorCode } from '../../core/errors.ts';
import { defineCommand, type CommandContext } from '../command.ts';
import { UsageError } from '../flags/parse-flags.ts';
import { abortOnSignals } from './disk-flags.ts';

/** `web:/etc/hosts` is in a guest; a path with a slash before the first colon is here, as with scp. */
const IN_GUEST = /^([a-zA-Z0-9][a-zA-Z0-9-]*):(.*)$/;

export const vmCpCommand = defineCommand({
  usage: 'GUEST:PATH|FILE|- GUEST:PATH|FILE|-',
  flags: {},
  arity: { min: 2, max: 2 },
  async run(context, _flags, [source = '', target = '']) {
    using signals = abortOnSignals();
    const from = IN_GUEST.exec(source);
    const to = IN_GUEST.exec(target);
    if ((from === null) === (to === null))
      throw new UsageError('one of the two is in a guest, as GUEST:/path, and the other is a file here');
    if (from) await copyOut(context, { guest: from[1] ?? '', path: from[2] ?? '' }, target, signals.signal);
    else await copyIn(context, source, { guest: to?.[1] ?? '', path: to?.[2] ?? '' }, signals.signal);
  },
});

interface GuestPath {
  readonly guest: string;
  readonly path: string;
}

async function copyIn(context: CommandContext, source: string, to: GuestPath, signal: AbortSignal): Promise<void> {
  const { guests } = context.client();
  const path = to.path.endsWith('/') ? join(to.path, basename(source)) : to.path;
  if (source === '-') {
    await guests.writeFile(to.guest, path, context.stdin, { signal });
    return;
  }
  await using file = await open(source, 'r').catch((error: unknown) => {
    throw new EngineError('not-found', `cannot read ${source}: ${systemErrorCode(error)}`, { cause: error });
  });
  if (!(await file.stat()).isFile())
    throw new EngineError(
      'invalid-argument',
      `${source} is no regular file; pack a directory first: tar c ${source} | bulkhead vm cp - …`,
    );
  await guests.writeFile(to.guest, path, file.createReadStream({ autoClose: false }), { signal });
}

async function copyOut(context: CommandContext, from: GuestPath, target: string, signal: AbortSignal): Promise<void> {
  const content = await context.client().guests.readFile(from.guest, from.path, { signal });
  if (target === '-') {
    await pipeline(content, context.stdout, { end: false });
    return;
  }
  const isDirectory = await stat(target).then(
    (found) => found.isDirectory(),
    () => false,
  );
  const path = isDirectory ? join(target, basename(from.path)) : target;
  // What comes out of a guest is whole, or is not there.
  const partial = `${path}.${process.pid}.partial`;
  try {
    await using file = await open(partial, 'wx');
    await file.writeFile(content);
    await rename(partial, path);
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
}
