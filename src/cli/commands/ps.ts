import { defineCommand, printLine } from '../command.ts';
import { FILTER_FLAG, FORMAT_FLAG, parseFilters } from '../flags/shared-flags.ts';
import {
  CONTAINER_HEADERS,
  CONTAINER_TABLE,
  CONTAINER_TABLE_WITH_SIZE,
  describeContainerRow,
} from '../render/container-rows.ts';
import { formatRows } from '../render/format-rows.ts';
import { shortId } from '../render/units.ts';

export const psCommand = defineCommand({
  usage: '[OPTIONS]',
  flags: {
    all: { kind: 'boolean', short: 'a', summary: 'Show all containers (default shows just running)' },
    filter: FILTER_FLAG,
    format: FORMAT_FLAG,
    last: { kind: 'integer', short: 'n', summary: 'Show n last created containers (includes all states)' },
    latest: { kind: 'boolean', short: 'l', summary: 'Show the latest created container (includes all states)' },
    'no-trunc': { kind: 'boolean', summary: "Don't truncate output" },
    quiet: { kind: 'boolean', short: 'q', summary: 'Only display container IDs' },
    size: { kind: 'boolean', short: 's', summary: 'Display total file sizes' },
  },
  arity: { min: 0, max: 0 },
  async run(context, flags) {
    const limit = flags.latest === true ? 1 : (flags.last ?? -1);
    const size = flags.size === true || /\.Size\b/.test(flags.format ?? '');
    const containers = await context.client().containers.list({
      all: flags.all ?? false,
      limit: limit > 0 ? limit : undefined,
      size,
      filters: parseFilters(flags.filter),
    });
    const truncates = flags['no-trunc'] !== true;
    if (flags.quiet === true && flags.format === undefined) {
      for (const { Id } of containers) printLine(context.stdout, truncates ? shortId(Id) : Id);
      return;
    }
    const nowMs = Date.now();
    context.stdout.write(
      formatRows(
        containers.map((container) => describeContainerRow(container, { truncates, nowMs })),
        {
          format: flags.format,
          defaultTable: flags.size === true ? CONTAINER_TABLE_WITH_SIZE : CONTAINER_TABLE,
          headers: CONTAINER_HEADERS,
        },
      ),
    );
  },
});
