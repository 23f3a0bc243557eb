import { watch } from 'node:fs';
import { open, stat, truncate, writeFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { Writable, Readable } from 'node:stream';

/** What an attached client sees of what was said before it came. */
const ATTACH_TAIL_BYTES = 64 * 1024;
/** QEMU appends what the guest says to the log; a guest that says more than this has the log cut, its last part kept beside it. */
const MAXIMUM_LOG_BYTES = 8 * 1024 * 1024;
const KEPT_TAIL_BYTES = 1024 * 1024;
const CHUNK_BYTES = 64 * 1024;

interface ConsoleLogger {
  readonly warn: (facts: object, message: string) => void;
}

/**
 * The serial console of a running guest. Its output is read from the log that QEMU writes, so that every reader gets every byte in order,
 * however many there are and whenever they come; its input goes through QEMU's console socket, which takes one connection: this one.
 */
export class RunningConsole implements Disposable {
  readonly #logPath: string;
  readonly #socketPath: string;
  readonly #logger: ConsoleLogger;
  readonly #ended = new AbortController();
  readonly #watcher: Disposable;
  #socket: Socket | undefined;
  #cutting = false;

  constructor(options: { logPath: string; socketPath: string; logger: ConsoleLogger }) {
    this.#logPath = options.logPath;
    this.#socketPath = options.socketPath;
    this.#logger = options.logger;
    this.#watcher = watchFile(options.logPath, () => void this.#cutLog());
  }

  /** Aborts when the guest is gone. */
  get ended(): AbortSignal {
    return this.#ended.signal;
  }

  attach(): { readonly tty: true; readonly output: Readable; readonly input: Writable; close(): void } {
    const closed = new AbortController();
    const stop = AbortSignal.any([closed.signal, this.#ended.signal]);
    const output = Readable.from(readLog(this.#logPath, { tailBytes: ATTACH_TAIL_BYTES, follow: stop }), {
      objectMode: false,
    });
    const input = new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        const socket = this.#connect();
        if (socket.write(chunk)) done();
        else socket.once('drain', () => done());
      },
    });
    return { tty: true, output, input, close: () => closed.abort() };
  }

  [Symbol.dispose](): void {
    this.#ended.abort();
    this.#watcher[Symbol.dispose]();
    this.#socket?.destroy();
  }

  #connect(): Socket {
    if (this.#socket && !this.#socket.destroyed) return this.#socket;
    const socket = connect(this.#socketPath);
    socket.resume(); // The log has it.
    socket.on('error', (error) => this.#logger.warn({ err: error }, 'console input was lost'));
    this.#socket = socket;
    return socket;
  }

  /** QEMU writes with O_APPEND: after the cut it goes on at the beginning. What it writes between copy and cut is lost. */
  async #cutLog(): Promise<void> {
    if (this.#cutting) return;
    this.#cutting = true;
    try {
      const { size } = await stat(this.#logPath);
      if (size <= MAXIMUM_LOG_BYTES) return;
      const tail = await readRange(this.#logPath, size - KEPT_TAIL_BYTES, KEPT_TAIL_BYTES);
      await writeFile(`${this.#logPath}.1`, tail, { mode: 0o600 });
      await truncate(this.#logPath, 0);
    } catch (error) {
      this.#logger.warn({ err: error }, 'cannot cut a console log');
    } finally {
      this.#cutting = false;
    }
  }
}

/**
 * A console's log: all of it, or its last part. With `follow` what comes later too, until that is aborted; what is there by then is
 * still read.
 */
export async function* readLog(
  path: string,
  options: { tailBytes?: number; follow?: AbortSignal },
): AsyncGenerator<Buffer, void, undefined> {
  const { follow, tailBytes } = options;
  let wake = (): void => undefined;
  let isChanged = false;
  const onChange = (): void => {
    isChanged = true;
    wake();
  };
  using _watcher = follow ? watchFile(path, onChange) : undefined;
  follow?.addEventListener('abort', onChange);
  try {
    const { size } = await stat(path);
    let offset = tailBytes === undefined ? 0 : Math.max(0, size - tailBytes);
    for (;;) {
      const isLast = !follow || follow.aborted;
      isChanged = false;
      const { size: now } = await stat(path);
      if (now < offset) offset = 0; // It was cut.
      for (;;) {
        const chunk = await readRange(path, offset, CHUNK_BYTES);
        if (chunk.length === 0) break;
        offset += chunk.length;
        yield chunk;
      }
      if (isLast) return;
      await new Promise<void>((resolve) => {
        wake = resolve;
        if (isChanged || follow.aborted) resolve();
      });
    }
  } finally {
    follow?.removeEventListener('abort', onChange);
  }
}

async function readRange(path: string, offset: number, length: number): Promise<Buffer> {
  await using file = await open(path, 'r');
  const buffer = Buffer.alloc(length);
  const { bytesRead } = await file.read(buffer, 0, length, offset);
  return buffer.subarray(0, bytesRead);
}

/** inotify: nothing runs while nothing is written. */
function watchFile(path: string, onChange: () => void): Disposable {
  const watcher = watch(path, { persistent: false }, onChange);
  watcher.on('error', () => undefined);
  return { [Symbol.dispose]: () => watcher.close() };
}
