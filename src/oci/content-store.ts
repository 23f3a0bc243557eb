import { randomUUID } from 'node:crypto';
import { renameSync } from 'node:fs';
import { mkdir, open, readdir, readFile, rename, rm, stat, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { digestOfBytes, hexOfDigest, isDigest, type Digest } from '../core/digest.ts';
import { EngineError, systemErrorCode } from '../core/errors.ts';
import { BlobWriter } from './blob-writer.ts';
import { explainStorageFailure } from './disk-space.ts';
import { Pins } from './pins.ts';

/** Blobs by digest, as pulled: `blobs/sha256/HEX`. A file there is complete and verified; what is not yet, is in `blobs/ingest`. */
export class ContentStore {
  readonly pins: Pins<Digest>;
  readonly #directory: string;
  readonly #ingest: string;

  private constructor(root: string, onFree: (digests: readonly Digest[]) => void) {
    this.pins = new Pins(onFree);
    this.#directory = join(root, 'blobs', 'sha256');
    this.#ingest = join(root, 'blobs', 'ingest');
  }

  /** Creates the directories and sweeps what an interrupted pull of an earlier daemon left. */
  static async open(root: string, onFree: (digests: readonly Digest[]) => void): Promise<ContentStore> {
    const store = new ContentStore(root, onFree);
    try {
      await rm(store.#ingest, { recursive: true, force: true });
      await mkdir(store.#directory, { recursive: true, mode: 0o700 });
      await mkdir(store.#ingest, { recursive: true, mode: 0o700 });
    } catch (error) {
      throw explainStorageFailure(error, root);
    }
    return store;
  }

  path(digest: Digest): string {
    return join(this.#directory, hexOfDigest(digest));
  }

  /** Size of the blob, undefined when it is not there. */
  async size(digest: Digest): Promise<number | undefined> {
    try {
      return (await stat(this.path(digest))).size;
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return undefined;
      throw error;
    }
  }

  async has(digest: Digest): Promise<boolean> {
    return (await this.size(digest)) !== undefined;
  }

  async open(digest: Digest): Promise<FileHandle> {
    try {
      return await open(this.path(digest), 'r');
    } catch (error) {
      if (systemErrorCode(error) !== 'ENOENT') throw error;
      throw new EngineError('not-found', `blob ${digest} is not in the store; pull the image again`, { cause: error });
    }
  }

  /** For manifests and configurations only: bounded, read whole. */
  async readSmall(digest: Digest, maxBytes: number): Promise<Buffer> {
    const size = await this.size(digest);
    if (size === undefined)
      throw new EngineError('not-found', `blob ${digest} is not in the store; pull the image again`);
    if (size > maxBytes)
      throw new EngineError('limit-exceeded', `blob ${digest} has ${size} bytes, more than the ${maxBytes} allowed`);
    return readFile(this.path(digest));
  }

  async createWriter(): Promise<BlobWriter> {
    return BlobWriter.create(join(this.#ingest, randomUUID()));
  }

  /** Makes a finished file visible under its digest. */
  async adopt(writer: BlobWriter, digest: Digest): Promise<void> {
    await rename(writer.path, this.path(digest));
    writer.keep();
    await syncDirectory(this.#directory);
  }

  async putBytes(bytes: Uint8Array): Promise<Digest> {
    const digest = digestOfBytes(bytes);
    if (await this.has(digest)) return digest;
    await using writer = await this.createWriter();
    await writer.write(Buffer.from(bytes));
    await writer.finish();
    await this.adopt(writer, digest);
    return digest;
  }

  /** The blob is gone when this returns; awaiting it waits for its space, too. */
  delete(digest: Digest): Promise<void> {
    return deleteFile(this.path(digest), this.#ingest);
  }

  async list(): Promise<Digest[]> {
    return (await readdir(this.#directory)).map((name) => `sha256:${name}`).filter(isDigest);
  }
}

/** A rename is only durable once its directory is. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/**
 * Takes the file away at once (a rename is quick whatever its size), and frees its space behind. Synchronous up to there, so that no one
 * can look in between: see `Pins`.
 */
export async function deleteFile(path: string, ingest: string): Promise<void> {
  const doomed = join(ingest, randomUUID());
  try {
    renameSync(path, doomed);
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return;
    throw error;
  }
  await rm(doomed, { force: true });
}
