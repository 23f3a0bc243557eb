import koffi from 'koffi';

/** Calls back, on the event loop, when a descriptor is readable. Close it before the descriptor itself is closed. */
export class ReadableWatch implements Disposable {
  readonly #poll: InstanceType<typeof koffi.node.PollHandle>;
  #closed = false;

  private constructor(poll: InstanceType<typeof koffi.node.PollHandle>) {
    this.#poll = poll;
  }

  /** Keeps the process alive, as a timer does, until it is closed. `onReadable` is called again and again while the descriptor is readable. */
  static open(descriptor: number, onReadable: () => void): ReadableWatch {
    return new ReadableWatch(koffi.node.poll(descriptor, { readable: true }, onReadable));
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#poll.stop();
    this.#poll.close();
  }
}
