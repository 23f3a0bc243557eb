import { PassThrough, pipeline, Transform, type Readable, type TransformCallback, type Writable } from 'node:stream';
import { pipeline as pump } from 'node:stream/promises';
import { EngineError } from '../core/errors.ts';
import type { Sandbox } from '../sandbox/sandbox.ts';
import type { Attachment } from './engine.ts';

/** ctrl-p, ctrl-q. */
const DEFAULT_DETACH_KEYS = [16, 17] as const;
const BUFFER_BYTES = 256 * 1024;

export interface ClientStreamsOptions {
  readonly tty: boolean;
  /** The client's input goes to the process. */
  readonly stdin: boolean;
  /** See `AttachOptions.detachKeys`. */
  readonly detachKeys: string | undefined;
  /** The user typed the detach keys; the streams are closed right after. */
  readonly onDetach: () => void;
  readonly onClose: () => void;
}

/** A process of a container, in the sandbox that runs it. */
export interface ProcessPlace {
  readonly sandbox: Sandbox;
  readonly containerId: string;
  readonly process: string;
}

/**
 * A client's two streams, and how they are joined to a process. Bytes go straight from the shim's socket to the client's; nothing is looked
 * at on the way but a terminal's keys.
 */
export class ClientStreams implements Attachment {
  readonly tty: boolean;
  readonly output = new PassThrough({ highWaterMark: BUFFER_BYTES });
  readonly input: Writable | undefined;
  readonly #toProcess: PassThrough | undefined;
  readonly #closed = new AbortController();
  readonly #onClose: () => void;

  constructor(options: ClientStreamsOptions) {
    const keys = options.stdin && options.tty ? new DetachKeys(parseDetachKeys(options.detachKeys)) : undefined;
    this.tty = options.tty;
    this.#onClose = options.onClose;
    this.#toProcess = options.stdin ? new PassThrough({ highWaterMark: BUFFER_BYTES }) : undefined;
    this.input = keys ?? this.#toProcess;
    if (keys && this.#toProcess) pipeline(keys, this.#toProcess, () => undefined);
    keys?.once('detach', () => {
      options.onDetach();
      this.close();
    });
  }

  close(): void {
    if (this.#closed.signal.aborted) return;
    this.#closed.abort();
    this.#onClose();
    this.output.end();
    this.#toProcess?.destroy();
  }

  /** Resolves once every later byte of the process is sure to be in the stream, which is then relayed or destroyed. */
  openOutput(
    { sandbox, containerId, process }: ProcessPlace,
    streams: { readonly from: 'start' | 'now'; readonly stdout: boolean; readonly stderr: boolean },
  ): Promise<Readable> {
    return sandbox.output(containerId, process, { ...streams, signal: this.#closed.signal });
  }

  /** With `ended`, the client's output lasts until that settles, too. */
  relay(source: Readable, ended?: Promise<void>): void {
    if (!ended) {
      pipeline(source, this.output, () => undefined);
      return;
    }
    pump(source, this.output, { end: false })
      .then(() => ended)
      .then(
        () => this.output.end(),
        (error: unknown) => {
          if (!this.#closed.signal.aborted) this.output.destroy(error instanceof Error ? error : undefined);
        },
      );
  }

  /** For a client that wants no output: its connection lasts as long as the process. */
  endWith({ sandbox, containerId, process }: ProcessPlace): void {
    void sandbox.wait(containerId, process, this.#closed.signal).then(
      () => this.output.end(),
      () => this.output.end(),
    );
  }

  joinInput({ sandbox, containerId, process }: ProcessPlace, options: { keepOpen: boolean }): void {
    if (this.#toProcess) pipeline(this.#toProcess, sandbox.input(containerId, process, options), () => undefined);
  }
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
