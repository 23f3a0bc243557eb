import { mkdir, rmdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { systemErrorCode } from '../../core/errors.ts';
import { listMountsBelow, mountErofs, unmount } from '../../platform/ffi/mounts.ts';

export interface MountableLayer {
  readonly imagePath: string;
  readonly sizeBytes: number;
  readonly diffId: string;
}

export interface MountedLayer {
  readonly imagePath: string;
  readonly sizeBytes: number;
  readonly mountPath: string;
}

/**
 * The layers that containers on the host's kernel use, each mounted once for all of them, so that they share the page cache. A mount is named
 * after its diffID and stays while the image does: sandboxes come and go without mounting anything but their own overlay.
 */
export class LayerMounts {
  readonly #root: string;
  readonly #mounting = new Map<string, Promise<string>>();

  private constructor(root: string, mounted: readonly string[]) {
    this.#root = root;
    for (const path of mounted) this.#mounting.set(basename(path), Promise.resolve(path));
  }

  /** Takes up what an earlier daemon left mounted below `root`. */
  static async open(root: string): Promise<LayerMounts> {
    await mkdir(root, { recursive: true, mode: 0o700 });
    return new LayerMounts(root, await listMountsBelow(root));
  }

  mount(layers: readonly MountableLayer[]): Promise<MountedLayer[]> {
    return Promise.all(
      layers.map(async ({ imagePath, sizeBytes, diffId }) => ({
        imagePath,
        sizeBytes,
        mountPath: await this.#mountOne(imagePath, diffId),
      })),
    );
  }

  /** Unmounts what no image needs any more: everything whose diffID is not in `needed`. */
  async sweep(needed: ReadonlySet<string>): Promise<void> {
    const names = new Set([...needed].map(directoryName));
    for (const name of [...this.#mounting.keys()].filter((one) => !names.has(one))) {
      const path = await this.#mounting.get(name)?.catch(() => undefined);
      this.#mounting.delete(name);
      // Overlays hold layers of their own: taking the name away does not disturb a container that still runs.
      if (path) await this.#unmountOne(path);
    }
  }

  /** Nothing stays mounted: for a daemon that ends and has no container running. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.sweep(new Set());
  }

  #mountOne(imagePath: string, diffId: string): Promise<string> {
    const name = directoryName(diffId);
    const known = this.#mounting.get(name);
    if (known) return known;
    const mounting = this.#make(imagePath, join(this.#root, name));
    this.#mounting.set(name, mounting);
    mounting.catch(() => this.#mounting.delete(name));
    return mounting;
  }

  async #make(imagePath: string, target: string): Promise<string> {
    await mkdir(target, { recursive: true, mode: 0o700 });
    await mountErofs(imagePath, target);
    return target;
  }

  async #unmountOne(path: string): Promise<void> {
    await unmount(path, { detach: true });
    try {
      await rmdir(path);
    } catch (error) {
      if (systemErrorCode(error) !== 'ENOENT') throw error;
    }
  }
}

function directoryName(diffId: string): string {
  return diffId.replace(/^sha256:/, '');
}
