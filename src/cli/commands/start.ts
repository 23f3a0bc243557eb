import { proxySignals } from '../container/signal-proxy.ts';
import { checkTerminal, followTerminalSize, startStreamSession } from '../container/stream-session.ts';
import { defineCommand, printLine, type CommandContext } from '../command.ts';
import { ExitRequest, describeError, startFailureExitCode } from '../exit-code.ts';
import { UsageError } from '../flags/parse-flags.ts';
import { forEachNameInOrder } from './for-each-name.ts';

export const startCommand = defineCommand({
  usage: '[OPTIONS] CONTAINER [CONTAINER...]',
  flags: {
    attach: { kind: 'boolean', short: 'a', summary: 'Attach STDOUT/STDERR and forward signals' },
    'detach-keys': { kind: 'string', summary: 'Override the key sequence for detaching a container' },
    interactive: { kind: 'boolean', short: 'i', summary: "Attach container's STDIN" },
  },
  arity: { min: 1 },
  async run(context, flags, names) {
    if (flags.attach !== true && flags.interactive !== true) {
      return forEachNameInOrder(context, names, async (name) => {
        await context.client().containers.start(name);
        printLine(context.stdout, name);
      }).then(() => 0);
    }
    const [name = '', ...others] = names;
    if (others.length > 0) throw new UsageError('you cannot start and attach multiple containers at once');
    return startAttached(context, name, { stdin: flags.interactive ?? false, detachKeys: flags['detach-keys'] });
  },
});

async function startAttached(
  context: CommandContext,
  name: string,
  options: { stdin: boolean; detachKeys: string | undefined },
): Promise<number> {
  const client = context.client();
  const { Id, Config, HostConfig } = await client.containers.inspect(name);
  const tty = Config.Tty;
  const stdin = options.stdin && Config.OpenStdin;
  checkTerminal(context, tty, stdin);
  using stack = new DisposableStack();
  if (!tty) stack.use(proxySignals(client, Id));
  const streams = { stdin, stdout: true, stderr: true, detachKeys: options.detachKeys };
  const connection = await client.containers.attach(Id, streams);
  const session = stack.use(startStreamSession(context, connection, { ...streams, tty }));
  const exit = await client.containers.wait(Id, { condition: HostConfig.AutoRemove ? 'removed' : 'next-exit' });
  try {
    await client.containers.start(Id, { detachKeys: options.detachKeys });
  } catch (error) {
    context.stderr.write(`${describeError(error)}\n`);
    throw new ExitRequest(startFailureExitCode(error));
  }
  if (tty) stack.use(followTerminalSize(context, client, Id));
  if ((await session.ended) === 'detached') return 0;
  return (await exit.result).StatusCode;
}
