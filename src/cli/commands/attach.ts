import { proxySignals } from '../container/signal-proxy.ts';
import { checkTerminal, followTerminalSize, startStreamSession } from '../container/stream-session.ts';
import { defineCommand, printLine } from '../command.ts';
import { EngineError } from '../../core/errors.ts';

export const attachCommand = defineCommand({
  usage: '[OPTIONS] CONTAINER',
  flags: {
    'detach-keys': { kind: 'string', summary: 'Override the key sequence for detaching a container' },
    'no-stdin': { kind: 'boolean', summary: 'Do not attach STDIN' },
    'sig-proxy': { kind: 'boolean', summary: 'Proxy all received signals to the process (default true)' },
  },
  arity: { min: 1, max: 1 },
  async run(context, flags, [name = '']) {
    const client = context.client();
    const { Id, Config, State } = await client.containers.inspect(name);
    if (!State.Running) throw new EngineError('wrong-state', 'cannot attach to a stopped container, start it first');
    if (State.Paused) throw new EngineError('wrong-state', 'cannot attach to a paused container, unpause it first');
    if (State.Restarting)
      throw new EngineError('wrong-state', 'cannot attach to a restarting container, wait until it is running');
    const tty = Config.Tty;
    const stdin = Config.OpenStdin && flags['no-stdin'] !== true;
    checkTerminal(context, tty, stdin);
    using stack = new DisposableStack();
    if (!tty && (flags['sig-proxy'] ?? true)) stack.use(proxySignals(client, Id));
    const exit = await client.containers.wait(Id, { condition: 'not-running' });
    const detachKeys = flags['detach-keys'];
    const streams = { stdin, stdout: true, stderr: true, detachKeys };
    const connection = await client.containers.attach(Id, streams);
    const session = stack.use(startStreamSession(context, connection, { ...streams, tty }));
    if (tty) stack.use(followTerminalSize(context, client, Id));
    if ((await session.ended) === 'detached') {
      stack.dispose();
      printLine(context.stderr, 'read escape sequence');
      return 0;
    }
    const answer = await exit.result;
    if (answer.Error?.Message) throw new Error(answer.Error.Message);
    return answer.StatusCode;
  },
});
