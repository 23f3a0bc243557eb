import { CONTAINER_FLAGS } from '../container/container-flags.ts';
import { createContainer } from '../container/create-container.ts';
import { buildCreateRequest } from '../container/create-request.ts';
import { terminalSize } from '../container/stream-session.ts';
import { defineCommand, printLine } from '../command.ts';

export const createCommand = defineCommand({
  usage: '[OPTIONS] IMAGE [COMMAND] [ARG...]',
  flags: CONTAINER_FLAGS,
  arity: { min: 1 },
  interspersed: false,
  async run(context, flags, words) {
    const [image = '', ...command] = words;
    const request = buildCreateRequest(flags, image, command, {
      environment: context.environment,
      detached: false,
      consoleSize: flags.tty === true ? terminalSize(context) : undefined,
    });
    const created = await createContainer(context, request, {
      name: flags.name,
      platform: flags.platform,
      pull: flags.pull,
      quiet: flags.quiet ?? false,
      cidFile: flags.cidfile,
    });
    printLine(context.stdout, created.Id);
  },
});
