import { pipeline } from 'node:stream/promises';
import { defineCommand } from '../command.ts';

export const dialStdioCommand = defineCommand({
  usage: '',
  flags: {},
  arity: { min: 0, max: 0 },
  async run(context) {
    const connection = await context.client().dial();
    // Either direction may end first: the request's end is half-close, the answer's end is the end.
    const upward = pipeline(context.stdin, connection).catch(() => {});
    await pipeline(connection, context.stdout, { end: false });
    void upward;
  },
});
