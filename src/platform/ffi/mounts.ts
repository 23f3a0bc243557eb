import { z } from 'zod';
import { nativeLibrary } from './library.ts';

export interface ErofsOptions {
  /** Through a loop device even where the kernel can mount the file itself (Linux 6.12 and later). */
  readonly forceLoop?: boolean;
}

export type ErofsMount = { readonly method: 'file' } | { readonly method: 'loop'; readonly loopDevice: string };

export interface MountPoint {
  readonly id: number;
  readonly parentId: number;
  /** `major:minor`. */
  readonly device: string;
  readonly target: string;
  readonly fileSystem: string;
  readonly source: string;
  /** Of the mount and of the file system, comma-separated. */
  readonly options: string;
}

const erofsSchema = z.discriminatedUnion('method', [
  z.object({ method: z.literal('file') }),
  z
    .object({ method: z.literal('loop'), loop_device: z.string() })
    .transform(({ method, loop_device }) => ({ method, loopDevice: loop_device })),
]);

const mountsSchema = z.array(
  z
    .object({
      id: z.number(),
      parent_id: z.number(),
      device: z.string(),
      target: z.string(),
      file_system: z.string(),
      source: z.string(),
      options: z.string(),
    })
    .transform(({ parent_id, file_system, ...rest }): MountPoint => ({
      ...rest,
      parentId: parent_id,
      fileSystem: file_system,
    })),
);

/**
 * Mounts an EROFS image on a directory, read-only, nodev and nosuid. An overlay over it still has working setuid files and device nodes, for the kernel
 * asks the overlay's own mount for both. A loop device goes by itself with the mount.
 */
export function mountErofs(
  image: string,
  target: string,
  { forceLoop = false }: ErofsOptions = {},
): Promise<ErofsMount> {
  return nativeLibrary().effect('bh_erofs_mount', { image, target, force_loop: forceLoop }, erofsSchema);
}

/** Unmounts; false if nothing is mounted there. `detach` takes it out of the tree at once and lets its last user end it. */
export async function unmount(target: string, { detach = false }: { detach?: boolean } = {}): Promise<boolean> {
  const schema = z.object({ unmounted: z.boolean() });
  const { unmounted } = await nativeLibrary().effect('bh_unmount', { target, detach }, schema);
  return unmounted;
}

/** Mounts at and below a directory, in the order they were made: unmount in reverse. */
export function listMounts(directory: string): Promise<MountPoint[]> {
  return nativeLibrary().effect('bh_mount_list', { directory }, mountsSchema);
}

/** The directories at and below `directory` on which something is mounted, in the order of the mounts. */
export async function listMountsBelow(directory: string): Promise<string[]> {
  return (await listMounts(directory)).map(({ target }) => target);
}
