import { checkEnvironmentVariable, collectEnvironment } from '../container/environment.ts';
import { checkTerminal, followSize, startStreamSession, terminalSize } from '../container/stream-session.ts';
import { defineCommand } from '../command.ts';

export const execCommand = defineCommand({
  usage: '[OPTIONS] CONTAINER COMMAND [ARG...]',
  flags: {
    detach: { kind: 'boolean', short: 'd', summary: 'Detached mode: run command in the background' },
    'detach-keys': { kind: 'string', summary: 'Override the key sequence for detaching a container' },
    env: {
      kind: 'list',
      short: 'e',
      summary: 'Set environment variables',
      value: 'name[=value]',
      check: checkEnvironmentVariable,
    },
    'env-file': { kind: 'list', summary: 'Read in a file of environment variables', value: 'path' },
    interactive: { kind: 'boolean', short: 'i', summary: 'Keep STDIN open even if not attached' },
    privileged: { kind: 'boolean', summary: 'Give extended privileges to the command' },
    tty: { kind: 'boolean', short: 't', summary: 'Allocate a pseudo-TTY' },
    user: { kind: 'string', short: 'u', summary: 'Username or UID', value: 'name|uid[:group|gid]' },
    workdir: { kind: 'string', short: 'w', summary: 'Working directory inside the container' },
  },
  arity: { min: 2 },
  interspersed: false,
  async run(context, flags, [container = '', ...command]) {
    const isDetached = flags.detach ?? false;
    const tty = flags.tty ?? false;
    const stdin = (flags.interactive ?? false) && !isDetached;
    if (!isDetached) checkTerminal(context, tty, stdin);
    const consoleSize = tty ? terminalSize(context) : undefined;
    const detachKeys = flags['detach-keys'];
    const { execs } = context.client();
    const { Id } = await execs.create(container, {
      AttachStdin: stdin,
      AttachStdout: !isDetached,
      AttachStderr: !isDetached,
      Cmd: command,
      DetachKeys: detachKeys ?? '',
      Env: collectEnvironment(flags['env-file'], flags.env, context.environment),
      Privileged: flags.privileged ?? false,
      Tty: tty,
      User: flags.user ?? '',
      WorkingDir: flags.workdir ?? '',
      ...(consoleSize ? { ConsoleSize: [...consoleSize] } : {}),
    });
    if (isDetached) {
      await execs.startDetached(Id, { tty });
      return 0;
    }
    using stack = new DisposableStack();
    const connection = await execs.start(Id, { tty, consoleSize });
    const streams = { tty, stdin, stdout: true, stderr: true, detachKeys };
    const session = stack.use(startStreamSession(context, connection, streams));
    if (tty) stack.use(followSize(context, (size) => execs.resize(Id, size)));
    if ((await session.ended) === 'detached') return 0;
    return (await execs.inspect(Id)).ExitCode ?? 0;
  },
});
