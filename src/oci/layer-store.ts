import { randomUUID } from 'node:crypto';
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { hexOfDigest, isDigest, type Digest } from '../core/digest.ts';
import { systemErrorCode } from '../core/errors.ts';
import { deleteFile, syncDirectory } from './content-store.ts';
import { explainStorageFailure } from './disk-space.ts';
import type { BuiltLayer, LayerBuilder, LayerLimits } from './layer-builder.ts';
import { Pins } from './pins.ts';
import { Semaphore } from './semaphore.ts';
import { SingleFlight } from './single-flight.ts';

export interface LayerSource {
  readonly blobPath: string;
  readonly digest: Digest;
  /** Absent for a layer whose content is only now being learnt (commit, build, import). */
  readonly diffId?: Digest;
}

export interface LayerStoreOptions {
  readonly root: string;
  readonly builder: LayerBuilder;
  readonly limits: LayerLimits;
  readonly buildsAtOnce: number;
  readonly onFree: (diffIds: readonly Digest[]) => void;
}

/** Unpacked layers: `layers/HEX.erofs`, one per diffID, shared by every image and container that has it. */
export class LayerStore {
  readonly pins: Pins<Digest>;
  readonly #directory: string;
  readonly #ingest: string;
  readonly #builder: LayerBuilder;
  readonly #limits: LayerLimits;
  readonly #flights = new SingleFlight<BuiltLayer>();
  readonly #slots: Semaphore;
  /** Built by this process; records know the others. A pull may have built what no record names yet. */
  readonly #built = new Map<Digest, BuiltLayer>();

  private constructor(options: LayerStoreOptions) {
    this.pins = new Pins(options.onFree);
    this.#directory = join(options.root, 'layers');
    this.#ingest = join(this.#directory, 'ingest');
    this.#builder = options.builder;
    this.#limits = options.limits;
    this.#slots = new Semaphore(options.buildsAtOnce);
  }

  static async open(options: LayerStoreOptions): Promise<LayerStore> {
    const store = new LayerStore(options);
    try {
      await rm(store.#ingest, { recursive: true, force: true });
      await mkdir(store.#ingest, { recursive: true, mode: 0o700 });
    } catch (error) {
      throw explainStorageFailure(error, options.root);
    }
    return store;
  }

  path(diffId: Digest): string {
    return join(this.#directory, `${hexOfDigest(diffId)}.erofs`);
  }

  /** Size of the unpacked image, undefined when it is not built. */
  async size(diffId: Digest): Promise<number | undefined> {
    try {
      return (await stat(this.path(diffId))).size;
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return undefined;
      throw error;
    }
  }

  builtHere(diffId: Digest): BuiltLayer | undefined {
    return this.#built.get(diffId);
  }

  /** Builds the layer, or waits for who is building it. The caller has checked that it is not there. */
  async build(source: LayerSource, signal?: AbortSignal): Promise<BuiltLayer> {
    // By content when it is known: two blobs (gzip, zstd) of one layer give one image. A failed flight of another blob says
    // nothing about ours, so ours then flies on its own.
    const key = source.diffId ?? `blob:${source.digest}`;
    for (;;) {
      let started = false;
      try {
        const { result } = await this.#flights.join(key, { signal }, (flight) => {
          started = true;
          return this.#build(source, flight.signal);
        });
        return result;
      } catch (error) {
        if (started || signal?.aborted) throw error;
      }
    }
  }

  async #build(source: LayerSource, signal: AbortSignal): Promise<BuiltLayer> {
    using _slot = await this.#slots.acquire(signal);
    const outputPath = join(this.#ingest, randomUUID());
    try {
      const built = await this.#builder.build({
        blobPath: source.blobPath,
        outputPath,
        expectDigest: source.digest,
        ...(source.diffId && { expectDiffId: source.diffId }),
        limits: this.#limits,
        signal,
      });
      const image = await open(outputPath, 'r');
      try {
        await image.sync();
      } finally {
        await image.close();
      }
      await rename(outputPath, this.path(built.diffId));
      await syncDirectory(this.#directory);
      this.#built.set(built.diffId, built);
      return built;
    } catch (error) {
      await rm(outputPath, { force: true });
      throw explainStorageFailure(error, this.#directory);
    }
  }

  /** The layer is gone when this returns; awaiting it waits for its space, too. */
  delete(diffId: Digest): Promise<void> {
    this.#built.delete(diffId);
    return deleteFile(this.path(diffId), this.#ingest);
  }

  async list(): Promise<Digest[]> {
    const names = await readdir(this.#directory);
    return names.map((name) => `sha256:${name.replace(/\.erofs$/, '')}`).filter(isDigest);
  }
}
