import { defineCommand, printLine } from '../command.ts';
import { describeError, exitCodeOf } from '../exit-code.ts';
import { formatValue } from '../render/format-rows.ts';
import { describeInfo } from '../render/info-text.ts';
import { BULKHEAD_VERSION } from '../version.ts';

export const infoCommand = defineCommand({
  usage: '[OPTIONS]',
  flags: { format: { kind: 'string', short: 'f', summary: "'json' or a Go template", value: 'format' } },
  arity: { min: 0, max: 0 },
  async run(context, flags) {
    if (flags.format !== undefined) {
      const info = await context.client().system.info();
      printLine(context.stdout, formatValue({ ...info, ClientInfo: { Version: BULKHEAD_VERSION } }, flags.format));
      return 0;
    }
    context.stdout.write(`Client:\n Version:    ${BULKHEAD_VERSION}\n\nServer:\n`);
    try {
      const info = await context.client().system.info();
      context.stdout.write(describeInfo(info));
      for (const warning of info.Warnings) printLine(context.stderr, warning);
      return 0;
    } catch (error) {
      printLine(context.stderr, describeError(error));
      return exitCodeOf(error);
    }
  },
});
