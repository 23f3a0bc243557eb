import { connect, type Socket } from 'node:net';
import { z } from 'zod';
import { EngineError } from '../../core/errors.ts';

/*
 * QEMU's monitor protocol: one JSON object a line, answers told apart by their id, events in between.
 * Source: QEMU docs/interop/qmp-spec.txt.
 */

const messageSchema = z.looseObject({
  id: z.string().optional(),
  event: z.string().optional(),
  data: z.record(z.string(), z.unknown()).optional(),
  return: z.unknown().optional(),
  error: z.object({ class: z.string(), desc: z.string() }).optional(),
});

export interface QmpEvent {
  readonly name: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** A machine process that its guest has taken over could say anything: a longer line than this is no answer. */
const MAXIMUM_LINE_CHARACTERS = 4 * 1024 * 1024;
const ANSWER_TIMEOUT_MS = 30_000;

interface Pending {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: EngineError) => void;
}

export class QmpClient implements Disposable {
  readonly #socket: Socket;
  readonly #onEvent: (event: QmpEvent) => void;
  readonly #pending = new Map<string, Pending>();
  readonly #closed = Promise.withResolvers<void>();
  #nextId = 1;
  #text = '';

  private constructor(socket: Socket, onEvent: (event: QmpEvent) => void) {
    this.#socket = socket;
    this.#onEvent = onEvent;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => this.#take(text));
    socket.on('error', () => undefined); // `close` follows, and tells whoever waits.
    socket.once('close', () => this.#fail('the connection to the machine was closed'));
  }

  /** Connects and leaves the negotiation behind; events come from here on. */
  static async connect(path: string, onEvent: (event: QmpEvent) => void): Promise<QmpClient> {
    const socket = connect(path);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    const client = new QmpClient(socket, onEvent);
    try {
      await client.execute('qmp_capabilities');
      return client;
    } catch (error) {
      client[Symbol.dispose]();
      throw error;
    }
  }

  /** Resolves when the connection has ended. */
  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  /** Resolves with what the command returns; what QEMU refuses is an error with its own words. */
  async execute(command: string, parameters: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    if (this.#socket.destroyed)
      throw new EngineError('unavailable', `cannot ask for ${command}: the machine does not answer any more`);
    const id = String(this.#nextId++);
    const answer = Promise.withResolvers<unknown>();
    const timer = setTimeout(() => {
      this.#pending.delete(id);
      answer.reject(
        new EngineError('timed-out', `the machine did not answer ${command} within ${ANSWER_TIMEOUT_MS / 1000} s`),
      );
    }, ANSWER_TIMEOUT_MS);
    this.#pending.set(id, answer);
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: parameters, id })}\n`);
    try {
      return await answer.promise;
    } catch (error) {
      throw new EngineError(
        error instanceof EngineError ? error.code : 'internal',
        `${command}: ${(error as Error).message}`,
        { cause: error },
      );
    } finally {
      clearTimeout(timer);
    }
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  #take(text: string): void {
    const lines = (this.#text + text).split('\n');
    this.#text = lines.pop() ?? '';
    if (this.#text.length > MAXIMUM_LINE_CHARACTERS) {
      this.#socket.destroy();
      return;
    }
    for (const line of lines) if (line.trim() !== '') this.#receive(line);
  }

  #receive(line: string): void {
    let message: z.infer<typeof messageSchema>;
    try {
      message = messageSchema.parse(JSON.parse(line));
    } catch {
      this.#socket.destroy(); // Whatever this is, it is no monitor that could be relied on.
      return;
    }
    if (message.event !== undefined) {
      this.#onEvent({ name: message.event, data: message.data ?? {} });
      return;
    }
    const pending = this.#pending.get(message.id ?? '');
    if (!pending) return; // The greeting.
    this.#pending.delete(message.id ?? '');
    if (message.error) pending.reject(new EngineError('internal', message.error.desc));
    else pending.resolve(message.return);
  }

  #fail(reason: string): void {
    for (const { reject } of this.#pending.values()) reject(new EngineError('unavailable', reason));
    this.#pending.clear();
    this.#closed.resolve();
  }
}
