import { defineCommand, printLine } from '../command.ts';
import { FILTER_FLAG, FORMAT_FLAG, parseFilters } from '../flags/shared-flags.ts';
import { formatRows } from '../render/format-rows.ts';
import { describeImageRows, IMAGE_HEADERS, IMAGE_TABLE, IMAGE_TABLE_WITH_DIGESTS } from '../render/image-rows.ts';

export const imagesCommand = defineCommand({
  usage: '[OPTIONS] [REPOSITORY[:TAG]]',
  flags: {
    all: { kind: 'boolean', short: 'a', summary: 'Show all images (default hides intermediate images)' },
    digests: { kind: 'boolean', summary: 'Show digests' },
    filter: FILTER_FLAG,
    format: FORMAT_FLAG,
    'no-trunc': { kind: 'boolean', summary: "Don't truncate output" },
    quiet: { kind: 'boolean', short: 'q', summary: 'Only show image IDs' },
  },
  arity: { min: 0, max: 1 },
  async run(context, flags, [reference]) {
    const given = parseFilters(flags.filter);
    const filters =
      reference === undefined ? given : { ...given, reference: [...(given['reference'] ?? []), reference] };
    const images = await context.client().images.list({ all: flags.all ?? false, filters });
    const showsDigests = flags.digests === true || /\.Digest\b/.test(flags.format ?? '');
    const rows = describeImageRows(images, { truncates: flags['no-trunc'] !== true, showsDigests, nowMs: Date.now() });
    if (flags.quiet === true && flags.format === undefined) {
      for (const row of rows) printLine(context.stdout, String(row['ID']));
      return;
    }
    context.stdout.write(
      formatRows(rows, {
        format: flags.format,
        defaultTable: flags.digests === true ? IMAGE_TABLE_WITH_DIGESTS : IMAGE_TABLE,
        headers: IMAGE_HEADERS,
      }),
    );
  },
});
