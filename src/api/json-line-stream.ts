import { toEngineError } from '../core/errors.ts';
import { statusOfError } from './error-status.ts';
import type { ApiReply } from './api-reply.ts';

/**
 * Docker's progress stream: one JSON object a line, ended by `\r\n`, sent as it happens. It starts with its first line, so that what
 * fails earlier still is an ordinary error; later failures are told in the stream.
 */
export class JsonLineStream {
  readonly #reply: ApiReply;

  constructor(reply: ApiReply) {
    this.#reply = reply;
  }

  /** `isPassing` marks a line that the next one makes worthless (a progress bar): it is dropped while the client is behind. */
  send(line: object, options: { isPassing?: boolean } = {}): void {
    if (options.isPassing === true && this.#reply.isBehind) return;
    this.#reply.startStream();
    this.#reply.writeNow(`${JSON.stringify(line)}\r\n`);
  }

  /** Runs `work`, and ends the stream with its last line or its failure; a failure is thrown on, for the log. */
  async finish(work: Promise<void>): Promise<void> {
    try {
      await work;
      this.#reply.startStream();
    } catch (thrown) {
      if (!this.#reply.isStarted) throw thrown;
      const error = toEngineError(thrown);
      this.send({ errorDetail: { code: statusOfError(error), message: error.message }, error: error.message });
      this.#reply.end();
      throw error;
    }
    this.#reply.end();
  }
}
