import type { Isolation } from '../../engine/engine.ts';
import type { HostConfig } from '../../wire/docker/container-config.ts';

/**
 * What Docker shows where the user set nothing: Go's zero values, so null for most lists. Source: `docker inspect` of dockerd 28.5 and
 * moby api/types/container/hostconfig.go (fields with omitempty are absent: Annotations, Init, Mounts, StorageOpt, Sysctls, Tmpfs).
 */
const DEFAULTS: Readonly<Record<string, unknown>> = {
  Binds: null,
  ContainerIDFile: '',
  LogConfig: { Type: 'json-file', Config: {} },
  NetworkMode: 'bridge',
  PortBindings: {},
  RestartPolicy: { Name: 'no', MaximumRetryCount: 0 },
  AutoRemove: false,
  VolumeDriver: '',
  VolumesFrom: null,
  ConsoleSize: [0, 0],
  CapAdd: null,
  CapDrop: null,
  CgroupnsMode: 'private',
  Dns: [],
  DnsOptions: [],
  DnsSearch: [],
  ExtraHosts: null,
  GroupAdd: null,
  IpcMode: 'private',
  Cgroup: '',
  Links: null,
  OomScoreAdj: 0,
  PidMode: '',
  Privileged: false,
  PublishAllPorts: false,
  ReadonlyRootfs: false,
  SecurityOpt: null,
  UTSMode: '',
  UsernsMode: '',
  ShmSize: 64 * 1024 * 1024,
  CpuShares: 0,
  Memory: 0,
  NanoCpus: 0,
  CgroupParent: '',
  BlkioWeight: 0,
  BlkioWeightDevice: [],
  BlkioDeviceReadBps: [],
  BlkioDeviceWriteBps: [],
  BlkioDeviceReadIOps: [],
  BlkioDeviceWriteIOps: [],
  CpuPeriod: 0,
  CpuQuota: 0,
  CpuRealtimePeriod: 0,
  CpuRealtimeRuntime: 0,
  CpusetCpus: '',
  CpusetMems: '',
  Devices: [],
  DeviceCgroupRules: null,
  DeviceRequests: null,
  MemoryReservation: 0,
  MemorySwap: 0,
  MemorySwappiness: null,
  OomKillDisable: false,
  PidsLimit: null,
  Ulimits: [],
  CpuCount: 0,
  CpuPercent: 0,
  IOMaximumIOps: 0,
  IOMaximumBandwidth: 0,
  MaskedPaths: [
    '/proc/acpi',
    '/proc/asound',
    '/proc/interrupts',
    '/proc/kcore',
    '/proc/keys',
    '/proc/latency_stats',
    '/proc/sched_debug',
    '/proc/scsi',
    '/proc/timer_list',
    '/proc/timer_stats',
    '/sys/devices/virtual/powercap',
    '/sys/firmware',
  ],
  ReadonlyPaths: ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'],
};

/** What the user asked for, with Docker's defaults where nothing was asked, and the wall that stands in fact. */
export function encodeHostConfig(hostConfig: HostConfig, wall: Isolation): Record<string, unknown> {
  const asked = Object.fromEntries(
    Object.entries(hostConfig).filter(([, value]) => value !== null && value !== undefined && value !== ''),
  );
  const networkMode = hostConfig.NetworkMode === 'default' ? { NetworkMode: 'bridge' } : {};
  const privileged = hostConfig.Privileged === true ? { MaskedPaths: null, ReadonlyPaths: null } : {};
  return {
    ...DEFAULTS,
    ...privileged,
    ...asked,
    ...networkMode,
    LogConfig: { Type: hostConfig.LogConfig?.Type || 'json-file', Config: hostConfig.LogConfig?.Config ?? {} },
    RestartPolicy: {
      Name: hostConfig.RestartPolicy?.Name || 'no',
      MaximumRetryCount: hostConfig.RestartPolicy?.MaximumRetryCount ?? 0,
    },
    ShmSize: hostConfig.ShmSize || DEFAULTS['ShmSize'],
    Runtime: hostConfig.Runtime || wall,
    Isolation: wall,
  };
}
