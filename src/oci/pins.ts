/** Files that must survive a sweep although no record names them yet: a pull in progress, a save being streamed. */
export class Pins<Key extends string> {
  readonly #counts = new Map<Key, number>();

  hold(keys: Iterable<Key>): Disposable {
    const held = [...new Set(keys)];
    for (const key of held) this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
    let isHeld = true;
    return {
      [Symbol.dispose]: () => {
        if (!isHeld) return;
        isHeld = false;
        for (const key of held) this.#release(key);
      },
    };
  }

  has(key: Key): boolean {
    return this.#counts.has(key);
  }

  #release(key: Key): void {
    const count = (this.#counts.get(key) ?? 0) - 1;
    if (count > 0) this.#counts.set(key, count);
    else this.#counts.delete(key);
  }
}
