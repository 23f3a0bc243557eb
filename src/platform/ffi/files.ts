import { z } from 'zod';
import { closeHandle } from './kvm.ts';
import { nativeLibrary } from './library.ts';

export interface SparseCopySpec {
  readonly source: string;
  /** Must not exist. */
  readonly target: string;
  /** Permission bits, before the umask; 0o600 unless told otherwise. */
  readonly mode?: number;
}

/** Copies a file and keeps its holes; a failure leaves no target. `dataBytes` is what it holds without the holes. */
export async function copySparse(spec: SparseCopySpec): Promise<{ sizeBytes: number; dataBytes: number }> {
  const request = { source: spec.source, target: spec.target, mode: spec.mode ?? 0o600 };
  const schema = z.object({ size_bytes: z.number(), data_bytes: z.number() });
  const { size_bytes, data_bytes } = await nativeLibrary().effect('bh_file_copy_sparse', request, schema);
  return { sizeBytes: size_bytes, dataBytes: data_bytes };
}

export interface FreeSpace {
  /** For users without privilege. */
  readonly freeBytes: number;
  readonly totalBytes: number;
  readonly freeInodes: number;
}

/** Room on the file system that holds `path`. */
export async function readFreeSpace(path: string): Promise<FreeSpace> {
  const schema = z.object({ free_bytes: z.number(), total_bytes: z.number(), free_inodes: z.number() });
  const { free_bytes, total_bytes, free_inodes } = await nativeLibrary().effect('bh_file_free_space', { path }, schema);
  return { freeBytes: free_bytes, totalBytes: total_bytes, freeInodes: free_inodes };
}

/** An exclusive lock that ends with this process, however it ends. */
export class FileLock implements Disposable {
  readonly path: string;
  readonly #handle: number;
  #released = false;

  private constructor(path: string, handle: number) {
    this.path = path;
    this.#handle = handle;
  }

  /** Creates the file if need be. Fails with `conflict`, naming the holder's pid, if another process (or this one) has the lock. */
  static async acquire(path: string): Promise<FileLock> {
    const { handle } = await nativeLibrary().effect('bh_file_lock', { path }, z.object({ handle: z.number() }));
    return new FileLock(path, handle);
  }

  [Symbol.dispose](): void {
    if (this.#released) return;
    this.#released = true;
    closeHandle(this.#handle);
  }
}
