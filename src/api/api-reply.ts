import type { ServerResponse } from 'node:http';
import { finished } from 'node:stream/promises';
import type { Readable } from 'node:stream';
import type { EngineError } from '../core/errors.ts';
import { statusOfError } from './error-status.ts';

/** Exactly this: the Go client compares with `==` before it reads `message` out of an error. */
const JSON_TYPE = 'application/json';

/** The answer to one request. */
export class ApiReply {
  readonly #response: ServerResponse;

  constructor(response: ServerResponse) {
    this.#response = response;
  }

  /** True once a byte is out: a failure can then only be told in the stream. */
  get isStarted(): boolean {
    return this.#response.headersSent;
  }

  header(name: string, value: string): void {
    this.#response.setHeader(name, value);
  }

  json(status: number, value: unknown): void {
    this.text(status, `${JSON.stringify(value)}\n`, JSON_TYPE);
  }

  text(status: number, text: string, contentType = 'text/plain; charset=utf-8'): void {
    const body = Buffer.from(text);
    this.#response.writeHead(status, { 'Content-Type': contentType, 'Content-Length': body.length });
    this.#response.end(body);
  }

  empty(status: number): void {
    // 204 and 304 have no body and must not have a length.
    const headers = status === 204 || status === 304 ? {} : { 'Content-Length': 0 };
    this.#response.writeHead(status, headers);
    this.#response.end();
  }

  error(error: EngineError, options: { plainText?: boolean } = {}): void {
    const status = statusOfError(error);
    if (status === 304) this.empty(304);
    else if (options.plainText === true) this.text(status, `${error.message}\n`);
    else this.json(status, { message: error.message });
  }

  /** Sends status 200 and the headers now; the body follows, of a length nobody knows yet. */
  startStream(contentType: string = JSON_TYPE): void {
    if (this.#response.headersSent) return;
    this.#response.writeHead(200, { 'Content-Type': contentType });
    this.#response.flushHeaders();
  }

  /** Writes a piece of a started stream; resolves when the client can take the next one. */
  async write(text: string): Promise<void> {
    if (this.#response.destroyed) return;
    if (this.#response.write(text)) return;
    await drained(this.#response);
  }

  /** True while the client has not taken what was written. */
  get isBehind(): boolean {
    return this.#response.writableNeedDrain;
  }

  /** Writes without waiting for a slow client; for little text only. */
  writeNow(text: string): void {
    if (!this.#response.destroyed) this.#response.write(text);
  }

  end(): void {
    this.#response.end();
  }

  /** Sends a stream of bytes to its end at the client's pace. A client that goes away ends it quietly, and destroys the source. */
  async sendBytes(source: Readable, contentType: string, signal: AbortSignal): Promise<void> {
    this.startStream(contentType);
    source.once('error', (error) => this.#response.destroy(error));
    this.#response.once('close', () => source.destroy());
    source.pipe(this.#response);
    try {
      await finished(this.#response);
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  /** Cuts the connection: the only way left to say that a started answer is not whole. */
  cut(): void {
    this.#response.destroy();
  }
}

function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const settle = (): void => {
      response.off('drain', settle);
      response.off('close', settle);
      resolve();
    };
    response.on('drain', settle);
    response.on('close', settle);
  });
}
