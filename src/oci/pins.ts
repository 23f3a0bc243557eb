/**
 * Files that must survive a sweep although no record names them: a pull in progress, a save being streamed.
 *
 * The order that makes this safe: whoever needs a file pins it first and looks for it then; whoever deletes looks for pins and takes the
 * file away in one synchronous step. Either the deletion comes first and the file is seen to be missing, or the pin does and it stays.
 */
export class Pins<Key extends string> {
  readonly #counts = new Map<Key, number>();
  readonly #deferred = new Set<Key>();
  readonly #onFree: (keys: readonly Key[]) => void;
  #unnamedHolds = 0;

  /** `onFree` gets the files whose deletion was put off because of a pin, once the last pin is gone. */
  constructor(onFree: (keys: readonly Key[]) => void) {
    this.#onFree = onFree;
  }

  hold(keys: Iterable<Key>): Disposable {
    const held = [...new Set(keys)];
    for (const key of held) this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
    return onceDisposed(() => {
      for (const key of held) this.#release(key);
    });
  }

  /** Everything, while a file is being made whose name is not known before it is there. */
  holdAll(): Disposable {
    this.#unnamedHolds += 1;
    return onceDisposed(() => {
      this.#unnamedHolds -= 1;
      this.#free([...this.#deferred]);
    });
  }

  /** Whether the file must stay for now. If so, `onFree` will be told when that is over. */
  defers(key: Key): boolean {
    if (!this.#isHeld(key)) return false;
    this.#deferred.add(key);
    return true;
  }

  #isHeld(key: Key): boolean {
    return this.#unnamedHolds > 0 || this.#counts.has(key);
  }

  #release(key: Key): void {
    const count = (this.#counts.get(key) ?? 0) - 1;
    if (count > 0) this.#counts.set(key, count);
    else this.#counts.delete(key);
    this.#free([key]);
  }

  #free(keys: readonly Key[]): void {
    const freed = keys.filter((key) => !this.#isHeld(key) && this.#deferred.delete(key));
    if (freed.length > 0) this.#onFree(freed);
  }
}

function onceDisposed(release: () => void): Disposable {
  let isHeld = true;
  return {
    [Symbol.dispose]: () => {
      if (!isHeld) return;
      isHeld = false;
      release();
    },
  };
}
