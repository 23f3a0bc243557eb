import { pipeline } from 'node:stream/promises';
import { EngineError } from '../../core/errors.ts';
import { startStreamSession } from '../container/stream-session.ts';
import { defineCommand, printLine } from '../command.ts';
import { UsageError } from '../flags/parse-flags.ts';
import { abortOnSignals } from './disk-flags.ts';

const DETACH_KEYS = 'ctrl-]';
/** The agent takes a program's input in one piece. */
const MAXIMUM_INPUT_BYTES = 4 * 1024 * 1024;

export const vmConsoleCommand = defineCommand({
  usage: '[OPTIONS] GUEST',
  flags: {
    'detach-keys': { kind: 'string', summary: `Keys that leave the console (default ${DETACH_KEYS})` },
    follow: { kind: 'boolean', short: 'f', summary: 'With --log: go on until the guest stops' },
    log: { kind: 'boolean', summary: 'Show what the console has said, also of a stopped guest, and do not attach' },
  },
  arity: { min: 1, max: 1 },
  async run(context, flags, [name = '']) {
    const { guests } = context.client();
    if (flags.log === true) {
      using signals = abortOnSignals();
      const log = await guests.consoleLog(name, { follow: flags.follow ?? false, signal: signals.signal });
      await pipeline(log, context.stdout, { end: false }).catch((error: unknown) => {
        if (!signals.signal.aborted) throw error;
      });
      return;
    }
    if (flags.follow === true) throw new UsageError('--follow goes with --log');
    const detachKeys = flags['detach-keys'] ?? DETACH_KEYS;
    const connection = await guests.attachConsole(name);
    printLine(context.stderr, `console of ${name}; leave it with ${detachKeys}, press Enter for a prompt`);
    const streams = { tty: true, stdin: true, stdout: true, stderr: false, detachKeys };
    using session = startStreamSession(context, connection, streams);
    const ending = await session.ended;
    printLine(context.stderr, ending === 'detached' ? '\r\ndetached' : '\r\nthe guest has stopped');
  },
});

export const vmExecCommand = defineCommand({
  usage: '[OPTIONS] GUEST [--] COMMAND [ARG...]',
  flags: {
    env: { kind: 'list', short: 'e', summary: 'Set an environment variable', value: 'key=value' },
    interactive: { kind: 'boolean', short: 'i', summary: 'Give it standard input, read to its end first' },
  },
  arity: { min: 2 },
  interspersed: false,
  async run(context, flags, [name = '', ...words]) {
    const command = words[0] === '--' ? words.slice(1) : words;
    if (command.length === 0) throw new UsageError('no command was named');
    const input = flags.interactive === true ? await readInput(context.stdin) : undefined;
    const result = await context.client().guests.exec(name, {
      command: [...command],
      ...(flags.env.length === 0 ? {} : { env: [...flags.env] }),
      ...(input === undefined ? {} : { input: input.toString('base64') }),
    });
    context.stdout.write(Buffer.from(result.stdout, 'base64'));
    context.stderr.write(Buffer.from(result.stderr, 'base64'));
    if (result.isTruncated)
      printLine(context.stderr, "bulkhead: the output was longer than the guest's agent keeps (16 MiB)");
    return result.exitCode;
  },
});

async function readInput(stdin: AsyncIterable<unknown>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of stdin) {
    const buffer = Buffer.from(chunk as Buffer);
    bytes += buffer.length;
    if (bytes > MAXIMUM_INPUT_BYTES)
      throw new EngineError(
        'limit-exceeded',
        `the input is longer than the ${MAXIMUM_INPUT_BYTES} bytes that the agent takes`,
      );
    chunks.push(buffer);
  }
  return Buffer.concat(chunks);
}
