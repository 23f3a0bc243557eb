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
/** More only take turns; many times more is a mistake. */
const VCPUS_PER_CPU = 4;
/** A host name, as the guest is called by it. Source: RFC 1123. */
const NAME_PATTERN = /^[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$/;

type GuestPlan = Pick<
  GuestRecord,
  'name' | 'vcpus' | 'maxVcpus' | 'memoryBytes' | 'maxMemoryBytes' | 'firmware' | 'machineType'
>;

/** What can be decided, and refused, before anything is fetched or made. */
export async function planGuest(
  request: GuestLaunchRequest,
  surroundings: {
    readonly host: HostResources;
    readonly accelerator: 'kvm' | 'tcg';
    readonly isTaken: (name: string) => boolean;
  },
): Promise<GuestPlan> {
  const { name } = request;
  const { host, accelerator, isTaken } = surroundings;
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
  // The ceilings cost a guest nothing until they are used: what its host has, and four times what it began with at most.
  // In emulation no CPU can be plugged: those above are there from the start, so they are only if somebody asks for them.
  const spareVcpus = accelerator === 'tcg' ? 0 : Math.min(vcpus * 4, host.cpus * VCPUS_PER_CPU);
  const maxVcpus = request.maxVcpus ?? Math.max(vcpus, spareVcpus);
  const maxMemoryBytes = request.maxMemoryBytes ?? Math.max(memoryBytes, Math.min(memoryBytes * 4, host.memoryBytes));
  if (maxVcpus < vcpus || maxMemoryBytes < memoryBytes) {
    throw new EngineError(
      'invalid-argument',
      'the most of vCPUs and memory cannot be less than what the guest starts with',
    );
  }
  assertFits({ vcpus: maxVcpus, memoryBytes: maxMemoryBytes }, host);
  return {
    name: name ?? generated(),
    vcpus,
    maxVcpus,
    memoryBytes,
    maxMemoryBytes,
    firmware,
    machineType: await newestMachineType(),
  };
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
export function assertFits(request: { vcpus: number; memoryBytes: number }, host: HostResources): void {
  if (request.vcpus > host.cpus * VCPUS_PER_CPU) {
    throw new EngineError(
      'limit-exceeded',
      `${request.vcpus} vCPUs are more than four for each of this host's ${host.cpus} CPUs; ask for ${host.cpus * VCPUS_PER_CPU} or less`,
      { details: { asked: request.vcpus, limit: host.cpus * VCPUS_PER_CPU } },
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
