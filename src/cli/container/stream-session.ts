import type { Duplex } from 'node:stream';
import { demultiplex, relay, type BulkheadClient } from '../../client/index.ts';
import type { CommandContext } from '../command.ts';
import { DEFAULT_DETACH_KEYS, DetachKeyFilter, parseDetachKeys } from '../terminal/detach-keys.ts';
import { enterRawMode } from '../terminal/raw-mode.ts';

export interface StreamSessionOptions {
  readonly tty: boolean;
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly detachKeys: string | undefined;
}

/** How the streams ended: the container's output did, or the user typed the detach keys. */
export type StreamEnding = 'output-ended' | 'detached';

/** The caller's terminal and streams joined to those of a container. */
export interface StreamSession extends Disposable {
  readonly ended: Promise<StreamEnding>;
}

export function startStreamSession(
  context: CommandContext,
  connection: Duplex,
  options: StreamSessionOptions,
): StreamSession {
  const raw = options.tty && options.stdin ? enterRawMode(context.stdin) : undefined;
  const detached = Promise.withResolvers<StreamEnding>();
  const detachKeys = parseDetachKeys(options.detachKeys || DEFAULT_DETACH_KEYS);
  const unpipe = options.stdin
    ? pipeInput(context, connection, options.tty ? detachKeys : undefined, () => detached.resolve('detached'))
    : () => {};
  const stdout = options.stdout ? context.stdout : undefined;
  const output = options.tty
    ? relay(connection, stdout)
    : demultiplex(connection, { stdout, stderr: options.stderr ? context.stderr : undefined });
  const ended = Promise.race([
    output.then(
      (): StreamEnding => 'output-ended',
      (error: unknown) => {
        // The daemon hung up on us, or we did: what the container came to is for `wait` to tell.
        if (connection.destroyed && !(error instanceof Error && error.name === 'EngineError'))
          return 'output-ended' as const;
        throw error;
      },
    ),
    detached.promise,
  ]);
  ended.catch(() => {});
  return {
    ended,
    [Symbol.dispose]: () => {
      unpipe();
      raw?.[Symbol.dispose]();
      connection.destroy();
    },
  };
}

function pipeInput(
  context: CommandContext,
  connection: Duplex,
  detachKeys: Uint8Array | undefined,
  onDetach: () => void,
): () => void {
  // Writing to a container that has exited fails; that is not the user's concern.
  connection.on('error', () => {});
  const { stdin } = context;
  if (detachKeys === undefined || stdin.isTTY !== true) stdin.pipe(connection);
  else stdin.pipe(new DetachKeyFilter(detachKeys, onDetach)).pipe(connection);
  return () => {
    stdin.unpipe();
    stdin.pause();
  };
}

/** Keeps the container's terminal as large as the caller's, until disposed. */
export function followTerminalSize(context: CommandContext, client: BulkheadClient, container: string): Disposable {
  return followSize(context, (size) => client.containers.resize(container, size));
}

/** The same for the terminal that `resize` sets. */
export function followSize(
  context: CommandContext,
  resize: (size: { height: number; width: number }) => Promise<void>,
): Disposable {
  const terminal = context.stdout as CommandContext['stdout'] & { rows?: number };
  const send = (): void => {
    const { rows, columns } = terminal;
    if (rows === undefined || columns === undefined || rows === 0 || columns === 0) return;
    resize({ height: rows, width: columns }).catch(() => {});
  };
  if (context.stdout.isTTY !== true) return { [Symbol.dispose]: () => {} };
  send();
  terminal.on('resize', send);
  return { [Symbol.dispose]: () => void terminal.removeListener('resize', send) };
}

/** Height and width of the caller's terminal, as `ConsoleSize` wants them. */
export function terminalSize(context: CommandContext): readonly [number, number] | undefined {
  const { rows, columns } = context.stdout as CommandContext['stdout'] & { rows?: number };
  return rows === undefined || columns === undefined ? undefined : [rows, columns];
}

/** Docker's refusal when a script asks for a terminal it does not have. */
export function checkTerminal(context: CommandContext, tty: boolean, stdin: boolean): void {
  if (tty && stdin && context.stdin.isTTY !== true) throw new Error('the input device is not a TTY');
}
