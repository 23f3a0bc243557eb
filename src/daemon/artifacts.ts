import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { MachineFiles } from '../machine/machine-host.ts';
import { findInstallation } from '../platform/installation.ts';

/** Where the parts that are not TypeScript are. */
export interface Artifacts {
  readonly shimPath: string;
  readonly layerBuilderPath: string;
  /** A container's PID 1 on the host's kernel (`--init`). */
  readonly initPath: string;
  readonly machineFiles: MachineFiles;
}

/** The guest kernel is our own where it was built (`make kernel`: quicker), else Debian's. */
export function findArtifacts(): Artifacts {
  const { programs, images, initPath } = findInstallation();
  const ownKernel = join(images, 'kernel', 'bulkhead', 'vmlinux');
  const hasOwnKernel = existsSync(ownKernel) && existsSync(join(images, 'initramfs-bulkhead.cpio'));
  return {
    shimPath: join(programs, 'bulkhead-shim'),
    layerBuilderPath: join(programs, 'bulkhead-layer'),
    initPath,
    machineFiles: {
      kernelPath: hasOwnKernel ? ownKernel : join(images, 'kernel', 'debian', 'vmlinux'),
      initramfsPath: join(images, hasOwnKernel ? 'initramfs-bulkhead.cpio' : 'initramfs.cpio'),
      scratchTemplatePath: join(images, 'scratch.ext4'),
      warmUpPath: join(images, 'warm-up.erofs'),
    },
  };
}
