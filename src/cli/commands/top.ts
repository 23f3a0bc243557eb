import { defineCommand, printLine } from '../command.ts';
import { alignTable } from '../render/table.ts';

/** Docker's table here is wider than its others. */
const LEAST_WIDTH = 20;
const PADDING = 3;

export const topCommand = defineCommand({
  usage: 'CONTAINER [ps OPTIONS]',
  flags: {},
  arity: { min: 1 },
  interspersed: false,
  async run(context, _flags, [container = '', ...psArguments]) {
    const { Titles, Processes } = await context.client().containers.top(container, psArguments.join(' '));
    const lines = [Titles, ...Processes].map((cells) => cells.join('\t'));
    printLine(context.stdout, alignTable(lines, LEAST_WIDTH, PADDING));
  },
});
