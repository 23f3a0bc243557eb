import { createInterface } from 'node:readline/promises';
import { defineCommand, printLine, type CommandContext } from '../command.ts';
import { ExitRequest, EXIT_ERROR } from '../exit-code.ts';
import { defineFlags } from '../flags/flag-table.ts';
import { parseFilters } from '../flags/shared-flags.ts';
import { formatDecimalBytes } from '../render/units.ts';

const PRUNE_FLAGS = defineFlags({
  filter: { kind: 'list', summary: 'Provide filter values (e.g. "until=<timestamp>")', value: 'key=value' },
  force: { kind: 'boolean', short: 'f', summary: 'Do not prompt for confirmation' },
});

export const containerPruneCommand = defineCommand({
  usage: '[OPTIONS]',
  flags: PRUNE_FLAGS,
  arity: { min: 0, max: 0 },
  async run(context, flags) {
    await confirm(context, flags.force, 'WARNING! This will remove all stopped containers.');
    const { ContainersDeleted, SpaceReclaimed } = await context
      .client()
      .containers.prune({ filters: parseFilters(flags.filter) });
    if (ContainersDeleted.length > 0)
      printLine(context.stdout, `Deleted Containers:\n${ContainersDeleted.join('\n')}\n`);
    printLine(context.stdout, `Total reclaimed space: ${formatDecimalBytes(SpaceReclaimed, 4)}`);
  },
});

export const imagePruneCommand = defineCommand({
  usage: '[OPTIONS]',
  flags: {
    ...PRUNE_FLAGS,
    all: { kind: 'boolean', short: 'a', summary: 'Remove all unused images, not just dangling ones' },
  },
  arity: { min: 0, max: 0 },
  async run(context, flags) {
    const all = flags.all ?? false;
    await confirm(
      context,
      flags.force,
      all
        ? 'WARNING! This will remove all images without at least one container associated to them.'
        : 'WARNING! This will remove all dangling images.',
    );
    const filters = { ...parseFilters(flags.filter), dangling: [String(!all)] };
    const { ImagesDeleted, SpaceReclaimed } = await context.client().images.prune({ filters });
    const deleted = (ImagesDeleted ?? []).map(({ Untagged, Deleted }) =>
      Untagged ? `untagged: ${Untagged}` : `deleted: ${Deleted ?? ''}`,
    );
    if (deleted.length > 0) printLine(context.stdout, `Deleted Images:\n${deleted.join('\n')}\n`);
    printLine(context.stdout, `Total reclaimed space: ${formatDecimalBytes(SpaceReclaimed, 4)}`);
  },
});

export const networkPruneCommand = defineCommand({
  usage: '[OPTIONS]',
  flags: PRUNE_FLAGS,
  arity: { min: 0, max: 0 },
  async run(context, flags) {
    await confirm(
      context,
      flags.force,
      'WARNING! This will remove all custom networks not used by at least one container.',
    );
    const deleted = await context.client().networks.prune({ filters: parseFilters(flags.filter) });
    if (deleted.length > 0) printLine(context.stdout, `Deleted Networks:\n${deleted.join('\n')}\n`);
  },
});

async function confirm(context: CommandContext, force: boolean | undefined, warning: string): Promise<void> {
  if (force === true) return;
  const terminal = createInterface({ input: context.stdin, output: context.stdout });
  try {
    const answer = terminal.question(`${warning}\nAre you sure you want to continue? [y/N] `);
    const closed = new Promise<string>((resolve) => terminal.once('close', () => resolve('')));
    if (/^y(es)?$/i.test((await Promise.race([answer, closed])).trim())) return;
  } finally {
    terminal.close();
  }
  context.stderr.write('nothing was removed\n');
  throw new ExitRequest(EXIT_ERROR);
}
