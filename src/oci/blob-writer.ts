import { createHash, type Hash } from 'node:crypto';
import { open, rm, type FileHandle } from 'node:fs/promises';
import { digestFromHex, type Digest } from '../core/digest.ts';
import { explainStorageFailure } from './disk-space.ts';

/** Chunks are gathered to this much before one vectored write: 64 KiB reads from sockets would cost a system call each. */
const BATCH_BYTES = 1024 * 1024;

/** A blob on its way to disk, hashed as it passes. The file stays in the ingest directory until the store takes it over. */
export class BlobWriter implements AsyncDisposable {
  readonly path: string;
  readonly #file: FileHandle;
  #hash: Hash = createHash('sha256');
  #batch: Buffer[] = [];
  #batchBytes = 0;
  #bytes = 0;
  #offset = 0;
  #pending: Promise<void> = Promise.resolve();
  #isOpen = true;
  #isKept = false;

  private constructor(path: string, file: FileHandle) {
    this.path = path;
    this.#file = file;
  }

  static async create(path: string): Promise<BlobWriter> {
    try {
      return new BlobWriter(path, await open(path, 'wx', 0o600));
    } catch (error) {
      throw explainStorageFailure(error, path);
    }
  }

  /** Bytes accepted so far, whether on disk yet or not. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Await it: that is the back-pressure. One batch is written while the next is gathered. */
  async write(chunk: Buffer): Promise<void> {
    this.#hash.update(chunk);
    this.#batch.push(chunk);
    this.#batchBytes += chunk.length;
    this.#bytes += chunk.length;
    if (this.#batchBytes >= BATCH_BYTES) await this.#flush();
  }

  async #flush(): Promise<void> {
    const batch = this.#batch;
    this.#batch = [];
    this.#batchBytes = 0;
    await this.#pending;
    this.#pending = this.#writeAll(batch);
    // Its failure is met at the next await; until then it must not count as unhandled.
    this.#pending.catch(() => undefined);
  }

  async #writeAll(batch: Buffer[]): Promise<void> {
    let rest = batch;
    try {
      while (rest.length > 0) {
        let { bytesWritten } = await this.#file.writev(rest, this.#offset);
        this.#offset += bytesWritten;
        rest = rest.flatMap((buffer) => {
          const skipped = Math.min(bytesWritten, buffer.length);
          bytesWritten -= skipped;
          return skipped === buffer.length ? [] : [buffer.subarray(skipped)];
        });
      }
    } catch (error) {
      throw explainStorageFailure(error, this.path);
    }
  }

  /** Starts over, for a server that ignored the Range asked for. */
  async restart(): Promise<void> {
    this.#batch = [];
    this.#batchBytes = 0;
    await this.#pending;
    await this.#file.truncate(0);
    this.#offset = 0;
    this.#hash = createHash('sha256');
    this.#bytes = 0;
  }

  /** All bytes durable; returns what they are. */
  async finish(): Promise<{ digest: Digest; bytes: number }> {
    await this.#flush();
    await this.#pending;
    try {
      await this.#file.sync();
      await this.#close();
    } catch (error) {
      throw explainStorageFailure(error, this.path);
    }
    return { digest: digestFromHex(this.#hash.digest('hex')), bytes: this.#bytes };
  }

  /** The store has renamed the file: nothing to clean up. */
  keep(): void {
    this.#isKept = true;
  }

  async #close(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    await this.#file.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pending.catch(() => undefined);
    await this.#close();
    if (!this.#isKept) await rm(this.path, { force: true });
  }
}
