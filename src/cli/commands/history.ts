import { defineCommand, printLine } from '../command.ts';
import { FORMAT_FLAG } from '../flags/shared-flags.ts';
import { formatRows } from '../render/format-rows.ts';
import { ellipsize, formatDecimalBytes, formatDuration, formatRfc3339Nano, shortId } from '../render/units.ts';

const HEADERS = {
  ID: 'IMAGE',
  CreatedSince: 'CREATED',
  CreatedAt: 'CREATED AT',
  CreatedBy: 'CREATED BY',
  Size: 'SIZE',
  Comment: 'COMMENT',
};
const AGES = '{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}';
const DATES = '{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}';

export const historyCommand = defineCommand({
  usage: '[OPTIONS] IMAGE',
  flags: {
    format: FORMAT_FLAG,
    human: { kind: 'boolean', short: 'H', summary: 'Print sizes and dates in human readable format (default true)' },
    'no-trunc': { kind: 'boolean', summary: "Don't truncate output" },
    quiet: { kind: 'boolean', short: 'q', summary: 'Only show image IDs' },
  },
  arity: { min: 1, max: 1 },
  async run(context, flags, [image = '']) {
    const entries = await context.client().images.history(image);
    const truncates = flags['no-trunc'] !== true;
    const human = flags.human ?? true;
    const idOf = (id: string): string => (truncates && id !== '<missing>' ? shortId(id) : id);
    if (flags.quiet === true && flags.format === undefined) {
      for (const { Id } of entries) printLine(context.stdout, idOf(Id));
      return;
    }
    const nowMs = Date.now();
    const rows = entries.map((entry) => {
      const age = entry.Created <= 0 ? 'N/A' : `${formatDuration(nowMs - entry.Created * 1000)} ago`;
      const command = entry.CreatedBy.replaceAll('\t', ' ');
      const createdAt = formatRfc3339Nano(BigInt(entry.Created) * 1_000_000_000n).replace('.000000000', '');
      return {
        Comment: entry.Comment,
        CreatedAt: createdAt,
        CreatedBy: truncates ? ellipsize(command, 45) : command,
        CreatedSince: human ? age : createdAt,
        ID: idOf(entry.Id),
        Size: human ? formatDecimalBytes(entry.Size) : String(entry.Size),
      };
    });
    context.stdout.write(
      formatRows(rows, { format: flags.format, defaultTable: human ? AGES : DATES, headers: HEADERS }),
    );
  },
});
