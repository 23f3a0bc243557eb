import { PassThrough, pipeline, Transform, type Readable, type TransformCallback, type Writable } from 'node:stream';
import { EngineError } from '../core/errors.ts';
import type { Sandbox } from '../sandbox/sandbox.ts';
import type { Attachment, AttachOptions } from './engine.ts';
import type { ContainerRecord } from './container-record.ts';

const INIT = 'init';
/** ctrl-p, ctrl-q. */
const DEFAULT_DETACH_KEYS = [16, 17] as const;

interface Client {
  readonly options: AttachOptions;
  readonly output: PassThrough;
  readonly input: PassThrough | undefined;
  readonly keepOpen: boolean;
  readonly closed: AbortController;
  isConnected: boolean;
}

/**
 * Who is attached to what. A client may come before the container is started: it is then connected before the first process runs, so it
 * misses nothing. Bytes go straight from the shim's socket to the client's; nothing is looked at on the way but a terminal's keys.
 */
export class Attachments {
  readonly #clients = new Map<string, Set<Client>>();

  /** `sandbox` is undefined for a container that is not started yet. `history` replaces the live output (`logs=1`). */
  async attach(
    record: ContainerRecord,
    options: AttachOptions,
    sandbox: Sandbox | undefined,
    history: Readable | undefined,
    onDetach: () => void,
  ): Promise<Attachment> {
    const tty = record.config.Tty ?? false;
    const closed = new AbortController();
    const output = new PassThrough({ highWaterMark: 256 * 1024 });
    const wantsInput = options.stdin && options.stream && (record.config.OpenStdin ?? false);
    const keys = wantsInput && tty ? new DetachKeys(parseDetachKeys(options.detachKeys)) : undefined;
    const input = wantsInput ? new PassThrough({ highWaterMark: 256 * 1024 }) : undefined;
    const client: Client = {
      options,
      output,
      input,
      keepOpen: !(record.config.StdinOnce ?? false),
      closed,
      isConnected: false,
    };
    const close = (): void => {
      if (closed.signal.aborted) return;
      closed.abort();
      this.#clients.get(record.id)?.delete(client);
      output.end();
      input?.destroy();
    };
    keys?.once('detach', () => {
      onDetach();
      close();
    });
    const clients = this.#clients.get(record.id) ?? new Set<Client>();
    this.#clients.set(record.id, clients);
    clients.add(client);
    try {
      if (history) pipeline(history, output, () => close());
      if (sandbox) await this.#connect(client, record.id, sandbox, history ? 'none' : 'now');
    } catch (error) {
      close();
      throw error;
    }
    return { tty, output, input: keys && input ? joinKeys(keys, input) : input, close };
  }

  /** The container's process stands ready and has not run yet: every waiting client is connected from the first byte on. */
  async connect(containerId: string, sandbox: Sandbox): Promise<void> {
    const waiting = [...(this.#clients.get(containerId) ?? [])].filter((client) => !client.isConnected);
    await Promise.all(waiting.map((client) => this.#connect(client, containerId, sandbox, 'start')));
  }

  /** The container's output has ended, or it will not start: clients that never got a stream are let go. */
  end(containerId: string): void {
    for (const client of [...(this.#clients.get(containerId) ?? [])]) {
      if (!client.isConnected) client.output.end();
    }
    this.#clients.delete(containerId);
  }

  async #connect(client: Client, containerId: string, sandbox: Sandbox, from: 'start' | 'now' | 'none'): Promise<void> {
    client.isConnected = true;
    const { options, output, input, closed } = client;
    if (from !== 'none' && options.stream && (options.stdout || options.stderr)) {
      const { stdout, stderr } = options;
      const source = await sandbox.output(containerId, INIT, { from, stdout, stderr, signal: closed.signal });
      pipeline(source, output, () => undefined);
    } else if (from !== 'none' && options.stream) {
      // Attached for stdin only: the connection lasts as long as the process.
      void sandbox.wait(containerId, INIT, closed.signal).then(
        () => output.end(),
        () => output.end(),
      );
    }
    if (input) pipeline(input, sandbox.input(containerId, INIT, { keepOpen: client.keepOpen }), () => undefined);
  }
}

function joinKeys(keys: DetachKeys, input: PassThrough): Writable {
  pipeline(keys, input, () => undefined);
  return keys;
}

/** Lets through what a terminal's user types, and recognises the keys that mean "leave the container running". */
class DetachKeys extends Transform {
  readonly #sequence: readonly number[];
  #matched = 0;

  constructor(sequence: readonly number[]) {
    super();
    this.#sequence = sequence;
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, callback: TransformCallback): void {
    const passed: number[] = [];
    for (const byte of chunk) {
      if (byte === this.#sequence[this.#matched]) {
        this.#matched += 1;
        if (this.#matched === this.#sequence.length) {
          this.emit('detach');
          callback();
          return;
        }
        continue;
      }
      passed.push(...this.#sequence.slice(0, this.#matched));
      this.#matched = byte === this.#sequence[0] ? 1 : 0;
      if (this.#matched === 0) passed.push(byte);
    }
    callback(null, Buffer.from(passed));
  }
}

/** `ctrl-p,ctrl-q`, `ctrl-@`, `a,b`: a list of single keys. Source: docker/cli, "detach-keys". */
export function parseDetachKeys(text: string | undefined): readonly number[] {
  if (text === undefined || text === '') return DEFAULT_DETACH_KEYS;
  return text.split(',').map((key) => {
    const control = /^ctrl-([a-z@[\\\]^_])$/.exec(key);
    if (control?.[1]) return control[1].toUpperCase().charCodeAt(0) & 0x1f;
    if (key.length === 1) return key.charCodeAt(0);
    throw new EngineError(
      'invalid-argument',
      `Invalid detach keys (${text}): write single keys or ctrl-KEY, separated by commas`,
    );
  });
}
