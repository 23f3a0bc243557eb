import type { ResourcePlan } from '../core/resources.ts';
import { planSeccomp } from '../core/seccomp.ts';
import type { ContainerConfig, HostConfig } from '../wire/docker/container-config.ts';
import { capabilitiesOf, planProcess, securityOptions } from './process-plan.ts';

/** What the runtime-spec is made from, beside the user's configuration. */
export interface SpecInput {
  readonly id: string;
  readonly config: ContainerConfig;
  readonly hostConfig: HostConfig;
  /** Program and arguments. */
  readonly command: readonly string[];
  /** `--init`: the program that becomes PID 1, outside the container; undefined where the container's own does. */
  readonly initPath?: string | undefined;
  readonly hostname: string;
  readonly resources: ResourcePlan;
  /** Capabilities that can be given at all in this wall. */
  readonly availableCapabilities: ReadonlySet<string>;
  /** The container sees its own cgroup as the root: where cgroups are version 2, as in Docker. */
  readonly hasCgroupNamespace: boolean;
  /** `sys/fs/cgroup`-relative cgroup of the container. */
  readonly cgroupPath: string;
}

/** Docker's place for it. */
const INIT_IN_CONTAINER = '/sbin/docker-init';
const DEFAULT_SHM_BYTES = 64 * 1024 * 1024;

/** Source: moby daemon/pkg/oci/defaults.go. */
const MASKED_PATHS = [
  '/proc/asound',
  '/proc/acpi',
  '/proc/interrupts',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/sys/firmware',
  '/sys/devices/virtual/powercap',
];
const READONLY_PATHS = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'];

/**
 * The OCI runtime-spec `config.json` of a container's first process: the same for both walls, which fill in the root, the network
 * namespace and the user's numbers. Source: https://github.com/opencontainers/runtime-spec/blob/main/config.md
 */
export function buildSpec(input: SpecInput): object {
  const { config, hostConfig } = input;
  const privileged = hostConfig.Privileged ?? false;
  const process = {
    config,
    hostConfig,
    hostname: input.hostname,
    command: input.initPath === undefined ? input.command : [INIT_IN_CONTAINER, '--', ...input.command],
    tty: config.Tty ?? false,
    extraEnvironment: [],
    workingDirectory: config.WorkingDir ?? '',
    isPrivileged: privileged,
    availableCapabilities: input.availableCapabilities,
  };
  const seccomp = planSeccomp(capabilitiesOf(process), privileged || securityOptions(hostConfig).isSeccompOff);
  return {
    ociVersion: '1.0.2',
    process: planProcess(process),
    root: { path: 'rootfs', readonly: hostConfig.ReadonlyRootfs ?? false },
    hostname: input.hostname,
    mounts: planMounts(hostConfig, privileged, input.initPath),
    linux: {
      cgroupsPath: input.cgroupPath,
      namespaces: ['pid', 'mount', 'uts', 'ipc', 'network', ...(input.hasCgroupNamespace ? ['cgroup'] : [])].map(
        (type) => ({ type }),
      ),
      resources: planCgroup(hostConfig, input.resources, privileged),
      sysctl: {
        'net.ipv4.ip_unprivileged_port_start': '0',
        'net.ipv4.ping_group_range': '0 2147483647',
        ...(hostConfig.Sysctls ?? {}),
      },
      maskedPaths: privileged ? [] : (hostConfig.MaskedPaths ?? MASKED_PATHS),
      readonlyPaths: privileged ? [] : (hostConfig.ReadonlyPaths ?? READONLY_PATHS),
      ...(seccomp ? { seccomp } : {}),
    },
  };
}

function planMounts(hostConfig: HostConfig, privileged: boolean, initPath: string | undefined): object[] {
  const access = privileged ? 'rw' : 'ro';
  const shmBytes = hostConfig.ShmSize || DEFAULT_SHM_BYTES;
  const standard = [
    { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
    {
      destination: '/dev',
      type: 'tmpfs',
      source: 'tmpfs',
      options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
    },
    {
      destination: '/dev/pts',
      type: 'devpts',
      source: 'devpts',
      options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'],
    },
    { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', access] },
    { destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: ['nosuid', 'noexec', 'nodev', access] },
    { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: ['nosuid', 'noexec', 'nodev'] },
    {
      destination: '/dev/shm',
      type: 'tmpfs',
      source: 'shm',
      options: ['nosuid', 'noexec', 'nodev', 'mode=1777', `size=${shmBytes}`],
    },
  ];
  const tmpfs = Object.entries(hostConfig.Tmpfs ?? {}).map(([destination, options]) => ({
    destination,
    type: 'tmpfs',
    source: 'tmpfs',
    options: ['nosuid', 'nodev', 'noexec', ...options.split(',').filter((option) => option !== '')],
  }));
  const init =
    initPath === undefined
      ? []
      : [{ destination: INIT_IN_CONTAINER, type: 'bind', source: initPath, options: ['bind', 'ro'] }];
  return [...standard, ...tmpfs, ...init];
}

/** Devices that every container may use; all others are denied. Numbers from Linux, Documentation/admin-guide/devices.txt. */
const ALLOWED_DEVICES = [
  { major: 1, minor: 3 }, // null
  { major: 1, minor: 5 }, // zero
  { major: 1, minor: 7 }, // full
  { major: 1, minor: 8 }, // random
  { major: 1, minor: 9 }, // urandom
  { major: 5, minor: 0 }, // tty
  { major: 5, minor: 1 }, // console
  { major: 5, minor: 2 }, // ptmx
] as const;

function planCgroup(hostConfig: HostConfig, plan: ResourcePlan, privileged: boolean): object {
  const cpu = {
    ...planCpu(hostConfig, plan),
    ...(hostConfig.CpuShares ? { shares: hostConfig.CpuShares } : {}),
    ...(hostConfig.CpusetCpus ? { cpus: hostConfig.CpusetCpus } : {}),
    ...(hostConfig.CpusetMems ? { mems: hostConfig.CpusetMems } : {}),
  };
  return {
    devices: privileged
      ? [{ allow: true, access: 'rwm' }]
      : [
          { allow: false, access: 'rwm' },
          { allow: true, type: 'c', access: 'm' },
          { allow: true, type: 'b', access: 'm' },
          ...ALLOWED_DEVICES.map((device) => ({ allow: true, type: 'c', ...device, access: 'rwm' })),
          { allow: true, type: 'c', major: 136, access: 'rwm' }, // pts/*
        ],
    ...(Object.keys(cpu).length > 0 ? { cpu } : {}),
    ...planMemory(hostConfig, plan),
    ...(hostConfig.PidsLimit && hostConfig.PidsLimit > 0 ? { pids: { limit: hostConfig.PidsLimit } } : {}),
  };
}

/** The share of a period that the container's processes may run. */
export function planCpu(hostConfig: HostConfig, plan: ResourcePlan): object {
  const period = hostConfig.CpuPeriod || 100_000;
  return plan.cpuLimit === undefined ? {} : { quota: Math.round(plan.cpuLimit * period), period };
}

/** Docker's rule: swap unset means as much swap as memory again; -1 is no bound. */
export function planMemory(hostConfig: HostConfig, plan: ResourcePlan): object {
  const limit = plan.memoryLimitBytes;
  if (limit === undefined && !hostConfig.MemoryReservation) return {};
  return {
    memory: {
      ...(limit === undefined ? {} : { limit, swap: hostConfig.MemorySwap || limit * 2 }),
      ...(hostConfig.MemoryReservation ? { reservation: hostConfig.MemoryReservation } : {}),
    },
  };
}
