import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { interfaceName, shortId } from '../core/ids.ts';
import type { MachineClass } from '../core/resources.ts';
import { killAndRemoveCgroup } from '../platform/cgroups.ts';
import type { MachineConfig, MachineTemplate } from '../wire/shim.ts';
import type { MachineBase, MachineHost } from './machine-host.ts';

/** Where the daemon's sandboxes are on the host. */
export interface SandboxPlaces {
  /** Runtime directories are made here. */
  readonly sandboxesDirectory: string;
  readonly interfacePrefix: string;
}

/** What a machine has of the host: a user, and names made from its id. */
export interface MachinePlace {
  readonly runtimeDir: string;
  readonly cgroupPath: string;
  readonly tapName: string;
  readonly uid: number;
}

/** Nothing is made yet; the user is taken. */
export function reserveMachine(machine: MachineHost, id: string, places: SandboxPlaces): MachinePlace {
  return {
    runtimeDir: join(places.sandboxesDirectory, shortId(id)),
    cgroupPath: `bulkhead/${id}`,
    tapName: interfaceName(places.interfacePrefix, 't', id),
    uid: machine.allocateUid(id),
  };
}

/** The machine of a shim's configuration. `template` is a saved one to start from, or to write. */
export function planMachine(
  base: MachineBase,
  { vcpus, memoryBytes }: MachineClass,
  { uid, cgroupPath, tapName }: Pick<MachinePlace, 'uid' | 'cgroupPath' | 'tapName'>,
  template: MachineTemplate | undefined,
): MachineConfig {
  return { driver: 'qemu', ...base, vcpus, memoryBytes, uid, cgroupPath, tapName, ...(template ? { template } : {}) };
}

/** Ends what still runs in a sandbox's cgroup, and removes what outlives a shim that was killed. Nothing is left after an orderly end. */
export async function removeRemains(place: Pick<MachinePlace, 'runtimeDir' | 'cgroupPath'>): Promise<void> {
  await rm(place.runtimeDir, { recursive: true, force: true });
  await killAndRemoveCgroup(place.cgroupPath);
}
