import { createReadStream, createWriteStream } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { defineCommand } from '../command.ts';
import { UsageError } from '../flags/parse-flags.ts';
import { renderProgress } from '../render/progress.ts';

export const saveCommand = defineCommand({
  usage: '[OPTIONS] IMAGE [IMAGE...]',
  flags: {
    output: { kind: 'string', short: 'o', summary: 'Write to a file, instead of STDOUT', value: 'path' },
    platform: { kind: 'string', summary: 'Save only the given platform variant', value: 'os[/arch[/variant]]' },
  },
  arity: { min: 1 },
  async run(context, flags, images) {
    if (flags.output === undefined) {
      if (context.stdout.isTTY === true)
        throw new UsageError('cowardly refusing to save to a terminal. Use the -o flag or redirect');
      const archive = await context.client().images.save(images, { platform: flags.platform });
      await pipeline(archive, context.stdout, { end: false });
      return;
    }
    const archive = await context.client().images.save(images, { platform: flags.platform });
    // The file gets its name when it is whole: half an archive must not be taken for one.
    const draft = `${flags.output}.partial-${process.pid}`;
    try {
      await pipeline(archive, createWriteStream(draft, { mode: 0o600 }));
      await rename(draft, flags.output);
    } catch (error) {
      await rm(draft, { force: true });
      throw error;
    }
  },
});

export const loadCommand = defineCommand({
  usage: '[OPTIONS]',
  flags: {
    input: { kind: 'string', short: 'i', summary: 'Read from tar archive file, instead of STDIN', value: 'path' },
    platform: { kind: 'string', summary: 'Load only the given platform variant', value: 'os[/arch[/variant]]' },
    quiet: { kind: 'boolean', short: 'q', summary: 'Suppress the load output' },
  },
  arity: { min: 0, max: 0 },
  async run(context, flags) {
    if (flags.input === undefined && context.stdin.isTTY === true)
      throw new UsageError('requested load from stdin, but stdin is empty');
    const archive = flags.input === undefined ? context.stdin : createReadStream(flags.input);
    const messages = await context
      .client()
      .images.load(archive, { quiet: flags.quiet ?? context.stdout.isTTY !== true, platform: flags.platform });
    await renderProgress(messages, context.stdout);
  },
});
