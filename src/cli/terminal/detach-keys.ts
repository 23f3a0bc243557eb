import { Transform, type TransformCallback } from 'node:stream';
import { UsageError } from '../flags/parse-flags.ts';

export const DEFAULT_DETACH_KEYS = 'ctrl-p,ctrl-q';

/** `ctrl-p,ctrl-q`, `a,b`: one byte a key. Source: moby/term ToBytes. */
export function parseDetachKeys(text: string): Uint8Array {
  return Uint8Array.from(
    text.split(',').map((key) => {
      if (key.length === 1) return key.charCodeAt(0);
      const control = /^ctrl-([a-z@[\\\]^_])$/.exec(key)?.[1];
      if (control === undefined) throw new UsageError(`invalid detach keys (${text}): Unknown character: '${key}'`);
      return control.charCodeAt(0) & 0x1f;
    }),
  );
}

/** Passes a terminal's input on until the detach keys come; then calls `onDetach` and swallows the rest. A begun sequence is held back. */
export class DetachKeyFilter extends Transform {
  readonly #keys: Uint8Array;
  readonly #onDetach: () => void;
  #matched = 0;
  #detached = false;

  constructor(keys: Uint8Array, onDetach: () => void) {
    super();
    this.#keys = keys;
    this.#onDetach = onDetach;
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    if (this.#detached) {
      done();
      return;
    }
    const passed: number[] = [];
    for (const byte of chunk) {
      if (byte === this.#keys[this.#matched]) {
        this.#matched += 1;
        if (this.#matched < this.#keys.length) continue;
        this.#detached = true;
        break;
      }
      passed.push(...this.#keys.subarray(0, this.#matched));
      this.#matched = byte === this.#keys[0] ? 1 : 0;
      if (this.#matched === 0) passed.push(byte);
    }
    if (passed.length > 0) this.push(Buffer.from(passed));
    done();
    if (this.#detached) this.#onDetach();
  }
}
