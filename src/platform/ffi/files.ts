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

/**
 * Digest of a file's size and of all its pages that are not zero: what is stored as holes makes no difference, and takes no time. `dataBytes` is
 * what those pages hold.
 */
export async function hashSparse(path: string): Promise<{ sha256: string; sizeBytes: number; dataBytes: number }> {
  const schema = z.object({ sha256: z.string(), size_bytes: z.number(), data_bytes: z.number() });
  const { sha256, size_bytes, data_bytes } = await nativeLibrary().effect('bh_file_hash_sparse', { path }, schema);
  return { sha256, sizeBytes: size_bytes, dataBytes: data_bytes };
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

/**
 * Locks a file exclusively; the lock ends when it is disposed or with this process, however it ends. Creates the file if need be, and writes
 * the pid into it. Fails with `conflict`, naming the holder's pid, if the lock is taken, be it by this process.
 */
export function lockFile(path: string): Disposable {
  const { handle } = nativeLibrary().effectNow('bh_file_lock', { path }, z.object({ handle: z.number() }));
  let released = false;
  return {
    [Symbol.dispose](): void {
      if (released) return;
      released = true;
      closeHandle(handle);
    },
  };
}
