import { EngineError } from '../core/errors.ts';
import { generateName } from '../core/ids.ts';
import type { HostResources } from '../core/resources.ts';
import { assertUserData } from '../machine/cloud-init/seed.ts';
import type { StoredGuestImage } from '../machine/guest-images/guest-images.ts';
import { findUefiFirmware, newestMachineType } from '../machine/guest/qemu-host.ts';
import type { GuestLaunchRequest } from '../wire/guest.ts';
import type { GuestRecord } from './guest-record.ts';

const DEFAULT_MEMORY_BYTES = 1024 ** 3;
const DEFAULT_VCPUS = 2;
/** A host name, as the guest is called by it. Source: RFC 1123. */
const NAME_PATTERN = /^[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$/;

/** What can be decided, and refused, before anything is fetched or made. */
export async function planGuest(
  request: GuestLaunchRequest,
  host: HostResources,
  isTaken: (name: string) => boolean,
): Promise<Pick<GuestRecord, 'name' | 'vcpus' | 'memoryBytes' | 'firmware' | 'machineType'>> {
  const { name } = request;
  if (name !== undefined && !NAME_PATTERN.test(name)) {
    throw new EngineError(
      'invalid-argument',
      `${JSON.stringify(name)} cannot be a guest's name, which is its host name too: letters, digits and hyphens, 63 at most`,
    );
  }
  if (name !== undefined && isTaken(name)) {
    throw new EngineError('conflict', `there is a guest ${name} already; choose another name, or delete it first`);
  }
  if (request.userData !== undefined) assertUserData(request.userData);
  const vcpus = request.vcpus ?? Math.min(DEFAULT_VCPUS, host.cpus);
  const memoryBytes = request.memoryBytes ?? DEFAULT_MEMORY_BYTES;
  assertFits({ vcpus, memoryBytes }, host);
  const firmware = request.firmware ?? 'bios';
  if (firmware === 'uefi') await findUefiFirmware();
  // No underscores: it is a host name.
  const generated = (): string => generateName((one) => isTaken(one.replaceAll('_', '-'))).replaceAll('_', '-');
  return { name: name ?? generated(), vcpus, memoryBytes, firmware, machineType: await newestMachineType() };
}

export function sizeOfDisk(request: GuestLaunchRequest, image: StoredGuestImage): number {
  const asked = request.diskBytes ?? image.virtualBytes;
  if (asked >= image.virtualBytes) return Math.ceil(asked / 512) * 512;
  throw new EngineError(
    'invalid-argument',
    `a disk of ${asked} bytes is below the ${image.virtualBytes} that ${image.name} needs; ask for more, or leave the size away`,
    { details: { asked, minimum: image.virtualBytes } },
  );
}

/** Refused with what was asked and what there is. */
function assertFits(request: { vcpus: number; memoryBytes: number }, host: HostResources): void {
  // More vCPUs than CPUs only take turns; many times more is a mistake.
  if (request.vcpus > host.cpus * 4) {
    throw new EngineError(
      'limit-exceeded',
      `${request.vcpus} vCPUs are more than four for each of this host's ${host.cpus} CPUs; ask for ${host.cpus * 4} or less`,
      { details: { asked: request.vcpus, limit: host.cpus * 4 } },
    );
  }
  if (request.memoryBytes > host.memoryBytes) {
    const mib = (bytes: number): number => Math.floor(bytes / 1024 ** 2);
    throw new EngineError(
      'limit-exceeded',
      `${mib(request.memoryBytes)} MiB of memory are more than this host's ${mib(host.memoryBytes)} MiB; ask for less`,
      { details: { asked: request.memoryBytes, limit: host.memoryBytes } },
    );
  }
}
