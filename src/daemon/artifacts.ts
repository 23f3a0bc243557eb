import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { MachineFiles } from '../machine/machine-host.ts';

/** Where the parts that are not TypeScript are. */
export interface Artifacts {
  readonly shimPath: string;
  readonly layerBuilderPath: string;
  readonly machineFiles: MachineFiles;
}

/**
 * In a checkout the parts are where their builds put them; an installed package has them all in one `lib/bulkhead`.
 * The guest kernel is our own where it was built (`make kernel`: quicker), else Debian's.
 */
export function findArtifacts(): Artifacts {
  const here = dirname(fileURLToPath(import.meta.url));
  const installed = findUpwards(here, 'libexec');
  if (installed) return inDirectory(installed, installed);
  const checkout = findUpwards(here, 'native') ?? here;
  return inDirectory(join(checkout, 'target', 'release'), join(dirname(checkout), 'build', 'vm'));
}

function inDirectory(programs: string, images: string): Artifacts {
  const ownKernel = join(images, 'kernel', 'bulkhead', 'vmlinux');
  const hasOwnKernel = existsSync(ownKernel) && existsSync(join(images, 'initramfs-bulkhead.cpio'));
  return {
    shimPath: join(programs, 'bulkhead-shim'),
    layerBuilderPath: join(programs, 'bulkhead-layer'),
    machineFiles: {
      kernelPath: hasOwnKernel ? ownKernel : join(images, 'kernel', 'debian', 'vmlinux'),
      initramfsPath: join(images, hasOwnKernel ? 'initramfs-bulkhead.cpio' : 'initramfs.cpio'),
      scratchTemplatePath: join(images, 'scratch.ext4'),
    },
  };
}

/** The directory `name` in `from` or the nearest of its parents that has one. */
function findUpwards(from: string, name: string): string | undefined {
  for (let directory = from; ; directory = dirname(directory)) {
    const candidate = join(directory, name);
    if (existsSync(candidate)) return candidate;
    if (directory === dirname(directory)) return undefined;
  }
}
