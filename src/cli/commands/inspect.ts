import { ApiError, type BulkheadClient } from '../../client/index.ts';
import { defineCommand, type CommandContext } from '../command.ts';
import { EngineError } from '../../core/errors.ts';
import { describeError, exitCodeOf, ExitRequest } from '../exit-code.ts';
import { UsageError } from '../flags/parse-flags.ts';
import { evaluateTemplate } from '../go-template/evaluate-template.ts';
import { TemplateError } from '../go-template/syntax.ts';
import { compileFormat } from '../render/format-rows.ts';

type Kind = 'container' | 'image' | 'network';

const FORMAT = { kind: 'string', short: 'f', summary: "'json' or a Go template", value: 'format' } as const;
const SIZE = { kind: 'boolean', short: 's', summary: 'Display total file sizes if the type is container' } as const;

export const inspectCommand = defineCommand({
  usage: '[OPTIONS] NAME|ID [NAME|ID...]',
  flags: {
    format: FORMAT,
    size: SIZE,
    type: { kind: 'string', summary: 'Only inspect objects of the given type', value: 'container|image|network' },
  },
  arity: { min: 1 },
  async run(context, flags, names) {
    const kinds: readonly Kind[] =
      flags.type === undefined || flags.type === '' ? ['container', 'image', 'network'] : [checkKind(flags.type)];
    await inspectNames(context, names, kinds, { format: flags.format, size: flags.size ?? false });
  },
});

export const containerInspectCommand = defineCommand({
  usage: '[OPTIONS] CONTAINER [CONTAINER...]',
  flags: { format: FORMAT, size: SIZE },
  arity: { min: 1 },
  run: async (context, flags, names) =>
    inspectNames(context, names, ['container'], { format: flags.format, size: flags.size ?? false }),
});

export const imageInspectCommand = defineCommand({
  usage: '[OPTIONS] IMAGE [IMAGE...]',
  flags: { format: FORMAT },
  arity: { min: 1 },
  run: async (context, flags, names) => inspectNames(context, names, ['image'], { format: flags.format, size: false }),
});

export const networkInspectCommand = defineCommand({
  usage: '[OPTIONS] NETWORK [NETWORK...]',
  flags: { format: FORMAT, verbose: { kind: 'boolean', short: 'v', summary: 'Verbose output for diagnostics' } },
  arity: { min: 1 },
  run: async (context, flags, names) =>
    inspectNames(context, names, ['network'], { format: flags.format, size: false }),
});

function checkKind(text: string): Kind {
  if (text === 'container' || text === 'image' || text === 'network') return text;
  throw new UsageError(`unknown type: ${JSON.stringify(text)}: must be one of "container", "image", "network"`);
}

/** Prints what is found, then tells what is not. */
async function inspectNames(
  context: CommandContext,
  names: readonly string[],
  kinds: readonly Kind[],
  options: { format: string | undefined; size: boolean },
): Promise<void> {
  const template =
    options.format === undefined || options.format === '' || options.format === 'json'
      ? undefined
      : compileTemplate(options.format);
  const found: unknown[] = [];
  const failures: unknown[] = [];
  for (const name of names) {
    try {
      found.push(await inspectOne(context.client(), name, kinds, options.size));
    } catch (error) {
      failures.push(error);
    }
  }
  if (template !== undefined) {
    for (const value of found) {
      try {
        context.stdout.write(`${evaluateTemplate(template, value)}\n`);
      } catch (error) {
        if (!(error instanceof TemplateError)) throw error;
        context.stdout.write('\n');
        failures.push(new TemplateError(`template parsing error: ${error.message}`, { cause: error }));
      }
    }
  } else if (options.format === 'json') context.stdout.write(`${JSON.stringify(found)}\n`);
  else context.stdout.write(`${found.length === 0 ? '[]' : JSON.stringify(found, null, 4)}\n`);
  for (const failure of failures) context.stderr.write(`${describeError(failure)}\n`);
  if (failures.length > 0) throw new ExitRequest(failures.map(exitCodeOf).find((code) => code !== 0) ?? 1);
}

function compileTemplate(format: string): ReturnType<typeof compileFormat> {
  try {
    return compileFormat(format);
  } catch (error) {
    if (!(error instanceof TemplateError) || !(error.cause instanceof Error)) throw error;
    throw new TemplateError(`template parsing error: ${error.cause.message}`, { cause: error });
  }
}

/** The first kind that has the name, in Docker's order. */
async function inspectOne(
  client: BulkheadClient,
  name: string,
  kinds: readonly Kind[],
  size: boolean,
): Promise<unknown> {
  for (const kind of kinds) {
    try {
      switch (kind) {
        case 'container':
          return await client.containers.inspectRaw(name, { size });
        case 'image':
          return await client.images.inspect(name);
        case 'network':
          return await client.networks.inspectRaw(name);
      }
    } catch (error) {
      const goesOn =
        kinds.length > 1 &&
        error instanceof ApiError &&
        (error.status === 404 || (error.status === 400 && kind !== 'container'));
      if (!goesOn) throw error;
    }
  }
  throw new EngineError('not-found', `error: no such object: ${name}`);
}
