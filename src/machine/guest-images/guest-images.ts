import { randomBytes } from 'node:crypto';
import { createWriteStream, existsSync } from 'node:fs';
import { access, link, mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { EngineError, systemErrorCode } from '../../core/errors.ts';
import { runProgram } from '../../platform/exec.ts';
import { copySparse } from '../../platform/ffi/files.ts';
import { findInstallation } from '../../platform/installation.ts';
import { inspectImage } from '../disks/inspect-image.ts';
import { qemuImgConvert, qemuImgInfo } from '../disks/qemu-img.ts';

/** The image that needs no download: built on this host from Debian's packages. */
export const DEBIAN_LOCAL = 'debian/local';

const NAME_PATTERN = /^[a-z0-9][a-z0-9._-]{0,62}(?:\/[a-z0-9][a-z0-9._-]{0,62})?$/;
const SUFFIX = '.qcow2';

export interface StoredGuestImage {
  readonly name: string;
  readonly path: string;
  readonly virtualBytes: number;
  readonly actualBytes: number;
}

/** Images that guests are made from: one qcow2 each, standing on nothing, never written again once it is there. */
export class GuestImages {
  readonly #root: string;
  readonly #building = new Map<string, Promise<void>>();

  private constructor(root: string) {
    this.#root = root;
  }

  static async open(root: string): Promise<GuestImages> {
    await mkdir(root, { recursive: true, mode: 0o711 });
    // Imports of a daemon that died.
    await rm(join(root, 'ingest'), { recursive: true, force: true });
    return new GuestImages(root);
  }

  async list(): Promise<StoredGuestImage[]> {
    const files = (await readdir(this.#root)).filter((file) => file.endsWith(SUFFIX) && !file.startsWith('.'));
    const names = files.map((file) => decodeURIComponent(file.slice(0, -SUFFIX.length)));
    return await Promise.all(names.sort().map((name) => this.#describe(name)));
  }

  /** Names that can be launched without an import, there or not. */
  get builtIn(): readonly string[] {
    return [DEBIAN_LOCAL];
  }

  /** The image, made first if it is one that can be made here; all who ask meanwhile wait for the same build. */
  async ensure(name: string, onProgress: (text: string) => void): Promise<StoredGuestImage> {
    assertImageName(name);
    if (!(await this.has(name))) {
      if (name !== DEBIAN_LOCAL) {
        throw new EngineError(
          'not-found',
          `no guest image ${name}; list them: bulkhead vm image list, or import one: bulkhead vm image import FILE ${name}`,
        );
      }
      // Not ended with the caller who began it: it serves all, and a half-built one serves none.
      const building = this.#building.get(name) ?? this.#build(name, onProgress);
      this.#building.set(name, building);
      await building.finally(() => this.#building.delete(name));
    }
    return await this.#describe(name);
  }

  async has(name: string): Promise<boolean> {
    return await access(this.#pathOf(name)).then(
      () => true,
      () => false,
    );
  }

  /**
   * Takes in a disk image that somebody sends: any format that we know, but nothing that refers to another file. It is copied into a
   * qcow2 of our own, so that nothing of its header survives.
   */
  async import(name: string, content: Readable, signal: AbortSignal): Promise<StoredGuestImage> {
    assertImageName(name);
    await this.#assertFree(name);
    // A directory of its own: an image may refer to files beside itself, and here are none.
    const directory = join(this.#root, 'ingest', randomBytes(8).toString('hex'));
    await mkdir(directory, { recursive: true, mode: 0o700 });
    try {
      const source = join(directory, 'image');
      await pipeline(content, createWriteStream(source, { mode: 0o600 }), { signal });
      const image = await inspectImage(source, { allowedDirectories: [] });
      const { virtualBytes } = await qemuImgInfo(source, image.format, { signal });
      if (virtualBytes === 0) throw new EngineError('invalid-argument', `what was sent as ${name} is an empty disk`);
      const target = join(directory, 'copy');
      await qemuImgConvert(image, { path: target, format: 'qcow2' }, { compress: false }, { signal });
      await link(target, this.#pathOf(name));
      return await this.#describe(name);
    } catch (error) {
      if (systemErrorCode(error) === 'EEXIST') await this.#assertFree(name);
      throw error;
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }

  /** Whoever calls has made sure that no guest stands on it. */
  async remove(name: string): Promise<void> {
    assertImageName(name);
    if (!(await this.has(name))) throw new EngineError('not-found', `no guest image ${name} is here`);
    const path = this.#pathOf(name);
    for (const file of [path, `${path}.made-by`, `${path}.packages`]) await rm(file, { force: true });
  }

  async #assertFree(name: string): Promise<void> {
    if (!(await this.has(name))) return;
    throw new EngineError(
      'conflict',
      `there is a guest image ${name} already; remove it first: bulkhead vm image remove ${name}`,
    );
  }

  /** Under another name or file the image of an installation can be replaced; what guests stand on here stays as it is. */
  async #takePrebuilt(name: string): Promise<boolean> {
    const prebuilt = join(findInstallation().images, 'guest', 'debian-local.qcow2');
    if (!existsSync(prebuilt)) return false;
    try {
      await link(prebuilt, this.#pathOf(name));
    } catch (error) {
      if (systemErrorCode(error) === 'EEXIST') return true;
      if (systemErrorCode(error) !== 'EXDEV') throw error;
      const partial = `${this.#pathOf(name)}.partial`;
      await rm(partial, { force: true });
      await copySparse({ source: prebuilt, target: partial, mode: 0o644 });
      await rename(partial, this.#pathOf(name));
    }
    return true;
  }

  async #build(name: string, onProgress: (text: string) => void): Promise<void> {
    if (await this.#takePrebuilt(name)) return;
    const builder = findBuilder();
    onProgress(`${name} is not here yet: building it from Debian packages (about a minute)`);
    await runProgram(builder, ['--output', this.#pathOf(name)], {
      purpose: `build the guest image ${name}`,
      timeoutMs: 0,
      onErrorOutput: (text) => {
        const lines = text.split('\n').filter((line) => line.trim() !== '');
        for (const line of lines) onProgress(line.replace(/^debian\/local: /, ''));
      },
    });
  }

  async #describe(name: string): Promise<StoredGuestImage> {
    const path = this.#pathOf(name);
    const { virtualBytes, actualBytes } = await qemuImgInfo(path, 'qcow2');
    return { name, path, virtualBytes, actualBytes };
  }

  #pathOf(name: string): string {
    return join(this.#root, `${encodeURIComponent(name)}${SUFFIX}`);
  }
}

export function assertImageName(name: string): void {
  if (NAME_PATTERN.test(name)) return;
  throw new EngineError(
    'invalid-argument',
    `${JSON.stringify(name)} is no name of a guest image; write it as debian/local: small letters, digits, and . _ - within, one slash at most`,
  );
}

/** In a package beside the other parts, in a checkout among the sources. */
function findBuilder(): string {
  const { images } = findInstallation();
  const places = [join(images, 'build-debian-local'), resolve(images, '../../vm-images/guest/build-debian-local')];
  const found = places.find((place) => existsSync(place));
  if (found !== undefined) return found;
  throw new EngineError('unavailable', `cannot build ${DEBIAN_LOCAL}: ${places[0]} is missing; install Bulkhead anew`);
}
