/** How a field of the API's HostConfig behaves behind each wall. */
export type Support =
  | { readonly kind: 'works' }
  /** Works, but not as in Docker: `how` says in what way. */
  | { readonly kind: 'differs'; readonly how: string }
  /** Not possible here: `why`, with what to use instead. */
  | { readonly kind: 'refused'; readonly why: string };

export interface FieldSupport {
  readonly vm: Support;
  readonly os: Support;
}

const works: Support = { kind: 'works' };
const both = (support: Support): FieldSupport => ({ vm: support, os: support });
const refused = (why: string): Support => ({ kind: 'refused', why });
const differs = (how: string): Support => ({ kind: 'differs', how });

const NOT_YET = 'this version of Bulkhead does not have it yet';
const NO_BLOCK_IO = `limits of block devices: ${NOT_YET}`;

/**
 * HostConfig field → what each wall makes of it. It drives validation and docs/compatibility.md. A field that is refused is refused only when it
 * is set to something; a field that is not in the table is kept and echoed, and has no effect (Docker's clients rely on that).
 */
export const HOST_CONFIG_SUPPORT: Readonly<Record<string, FieldSupport>> = {
  AutoRemove: both(works),
  Binds: both(refused(`bind mounts and volumes: ${NOT_YET}`)),
  Mounts: both(refused(`mounts: ${NOT_YET}; --tmpfs works`)),
  VolumesFrom: both(refused(`volumes: ${NOT_YET}`)),
  BlkioDeviceReadBps: both(refused(NO_BLOCK_IO)),
  BlkioDeviceReadIOps: both(refused(NO_BLOCK_IO)),
  BlkioDeviceWriteBps: both(refused(NO_BLOCK_IO)),
  BlkioDeviceWriteIOps: both(refused(NO_BLOCK_IO)),
  BlkioWeight: both(refused(NO_BLOCK_IO)),
  BlkioWeightDevice: both(refused(NO_BLOCK_IO)),
  CapAdd: both(works),
  CapDrop: both(works),
  CgroupParent: both(refused('a parent cgroup of your own is not supported; limits are set per container')),
  CpuPeriod: both(works),
  CpuQuota: both(works),
  CpuRealtimePeriod: both(refused('real-time scheduling is not supported; use --cpus')),
  CpuRealtimeRuntime: both(refused('real-time scheduling is not supported; use --cpus')),
  CpuShares: both(works),
  CpusetCpus: { vm: differs('chooses among the virtual CPUs of the machine, not the host’s'), os: works },
  CpusetMems: { vm: refused('a machine has one memory node'), os: works },
  DeviceCgroupRules: both(refused(`host devices: ${NOT_YET}`)),
  Devices: both(refused(`host devices: ${NOT_YET}`)),
  DeviceRequests: both(refused('GPUs and other device requests are not supported')),
  Dns: both(works),
  DnsOptions: both(works),
  DnsSearch: both(works),
  ExtraHosts: both(works),
  GroupAdd: both(works),
  Init: both(works),
  IpcMode: both(works),
  Isolation: both(works),
  Links: both(refused(`links: ${NOT_YET}; reach the other container by its IP address`)),
  LogConfig: both(works),
  Memory: {
    vm: differs('the machine is the next size above the limit; the limit itself is enforced by a cgroup in the guest'),
    os: works,
  },
  MemoryReservation: both(works),
  MemorySwap: { vm: differs('a machine has no swap: the limit is the memory limit'), os: works },
  NanoCpus: {
    vm: differs('rounded up to whole virtual CPUs, and the rest enforced by a cgroup in the guest'),
    os: works,
  },
  OomKillDisable: both(refused('disabling the OOM killer is not supported')),
  OomScoreAdj: both(works),
  PidsLimit: both(works),
  PortBindings: both(works),
  Privileged: { vm: differs('all of the guest’s own kernel, nothing of the host'), os: works },
  PublishAllPorts: both(works),
  ReadonlyRootfs: both(works),
  RestartPolicy: both(works),
  SecurityOpt: {
    vm: differs('no-new-privileges works; a seccomp profile has no meaning: the kernel is the container’s own'),
    os: works,
  },
  ShmSize: both(works),
  StorageOpt: both(refused(`--storage-opt: ${NOT_YET}`)),
  Sysctls: both(works),
  Tmpfs: both(works),
  Ulimits: both(works),
};

/** True for a value that asks for something: not null, false, 0, '' or empty. */
export function isSet(value: unknown): boolean {
  if (value === null || value === undefined || value === false || value === 0 || value === '') return false;
  if (Array.isArray(value)) return value.length > 0;
  if (typeof value === 'object') return Object.keys(value).length > 0;
  return true;
}
