import { rmSync } from 'node:fs';
import { RUN_FLAGS } from '../container/container-flags.ts';
import { createContainer } from '../container/create-container.ts';
import { proxySignals } from '../container/signal-proxy.ts';
import { checkTerminal, followTerminalSize, startStreamSession, terminalSize } from '../container/stream-session.ts';
import { ClientMoments, printTiming } from '../container/timing.ts';
import { buildCreateRequest } from '../container/create-request.ts';
import { defineCommand, printLine, type CommandContext } from '../command.ts';
import { describeError, ExitRequest, EXIT_RUN_FAILED, startFailureExitCode } from '../exit-code.ts';
import { UsageError } from '../flags/parse-flags.ts';
import type { FlagValues } from '../flags/flag-table.ts';

type RunFlags = FlagValues<typeof RUN_FLAGS>;

export const runCommand = defineCommand({
  usage: '[OPTIONS] IMAGE [COMMAND] [ARG...]',
  flags: RUN_FLAGS,
  arity: { min: 1 },
  interspersed: false,
  async run(context, flags, words) {
    try {
      return await runContainer(context, flags, words);
    } catch (error) {
      if (error instanceof ExitRequest) throw error;
      printLine(context.stderr, `bulkhead: ${describeError(error)}\n\nRun 'bulkhead run --help' for more information`);
      return error instanceof UsageError ? EXIT_RUN_FAILED : startFailureExitCode(error);
    }
  },
});

async function runContainer(context: CommandContext, flags: RunFlags, words: readonly string[]): Promise<number> {
  const moments = new ClientMoments();
  const [image = '', ...command] = words;
  const detached = flags.detach ?? false;
  const tty = flags.tty ?? false;
  if (!detached) checkTerminal(context, tty, (flags.interactive ?? false) && flags.attach.length === 0);
  const request = buildCreateRequest(flags, image, command, {
    environment: context.environment,
    detached,
    consoleSize: tty ? terminalSize(context) : undefined,
  });
  // With --timing the container must outlive its end until its phases are read; it is then removed from here.
  const removesLater = flags.timing === true && flags.rm === true && !detached;
  if (removesLater && request.HostConfig) request.HostConfig.AutoRemove = false;
  const daemonRemoves = flags.rm === true && !removesLater;
  const client = context.client();
  const created = await createContainer(context, request, {
    name: flags.name,
    platform: flags.platform,
    pull: flags.pull,
    quiet: flags.quiet ?? false,
    cidFile: flags.cidfile,
  });
  const id = created.Id;
  moments.mark('created');
  const forgetCidFile = (): void => {
    if (flags.cidfile !== undefined) rmSync(flags.cidfile, { force: true });
  };
  if (detached) {
    await client.containers.start(id).catch((error: unknown) => {
      forgetCidFile();
      throw error;
    });
    printLine(context.stdout, id);
    moments.mark('start-answered');
    if (flags.timing === true) await printTiming(context, id, moments);
    return 0;
  }
  using stack = new DisposableStack();
  if (!tty && (flags['sig-proxy'] ?? true)) stack.use(proxySignals(client, id));
  const streams = {
    stdin: request.AttachStdin === true && flags.interactive === true,
    stdout: request.AttachStdout === true,
    stderr: request.AttachStderr === true,
  };
  const detachKeys = flags['detach-keys'];
  const connection = await client.containers.attach(id, { ...streams, detachKeys });
  const session = stack.use(startStreamSession(context, connection, { ...streams, tty, detachKeys }));
  moments.mark('attached');
  const exit = await client.containers.wait(id, { condition: daemonRemoves ? 'removed' : 'next-exit' });
  try {
    await client.containers.start(id);
  } catch (error) {
    forgetCidFile();
    // With --rm the daemon takes the failed container away; the next command must not meet its name.
    if (daemonRemoves) await exit.result.catch(() => {});
    if (removesLater) await client.containers.remove(id, { force: true, volumes: true });
    throw error;
  }
  moments.mark('start-answered');
  if (tty) stack.use(followTerminalSize(context, client, id));
  const ending = await session.ended;
  moments.mark('output-ended');
  if (ending === 'detached') return 0;
  const answer = await exit.result;
  moments.mark('exit-known');
  stack.dispose();
  if (flags.timing === true) await printTiming(context, id, moments);
  if (removesLater) await client.containers.remove(id, { force: true, volumes: true });
  if (answer.Error?.Message) printLine(context.stderr, `bulkhead: ${answer.Error.Message}`);
  return answer.Error?.Message && answer.StatusCode === 0 ? EXIT_RUN_FAILED : answer.StatusCode;
}
