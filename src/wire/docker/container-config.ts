import { z } from 'zod';

/**
 * The parts of the Docker Engine API's container body that the engine acts on. Tolerant by design: Docker clients send nulls for empty
 * maps and lists and fields we do not know; unknown fields are kept, because inspect must echo them.
 * Source: moby api/docs/v1.51.yaml, definitions ContainerConfig and HostConfig.
 */
const stringMap = z.record(z.string(), z.string()).nullish();
const stringList = z.array(z.string()).nullish();
/** `"a b"` and `["a","b"]` are both legal for commands (API < 1.25 clients and hand-written bodies). */
const command = z.union([z.string().transform((text) => [text]), z.array(z.string())]).nullish();

export const healthcheckSchema = z.looseObject({
  Test: stringList,
  /** Nanoseconds, as are all of Docker's durations. */
  Interval: z.number().nullish(),
  Timeout: z.number().nullish(),
  Retries: z.number().nullish(),
  StartPeriod: z.number().nullish(),
  StartInterval: z.number().nullish(),
});

export const containerConfigSchema = z.looseObject({
  Hostname: z.string().nullish(),
  Domainname: z.string().nullish(),
  User: z.string().nullish(),
  AttachStdin: z.boolean().nullish(),
  AttachStdout: z.boolean().nullish(),
  AttachStderr: z.boolean().nullish(),
  ExposedPorts: z.record(z.string(), z.looseObject({})).nullish(),
  Tty: z.boolean().nullish(),
  OpenStdin: z.boolean().nullish(),
  StdinOnce: z.boolean().nullish(),
  Env: stringList,
  Cmd: command,
  Healthcheck: healthcheckSchema.nullish(),
  Image: z.string().nullish(),
  Volumes: z.record(z.string(), z.looseObject({})).nullish(),
  WorkingDir: z.string().nullish(),
  Entrypoint: command,
  NetworkDisabled: z.boolean().nullish(),
  MacAddress: z.string().nullish(),
  Labels: stringMap,
  StopSignal: z.string().nullish(),
  StopTimeout: z.number().int().nullish(),
  Shell: stringList,
});

export const portBindingSchema = z.looseObject({ HostIp: z.string().nullish(), HostPort: z.string().nullish() });

export const hostConfigSchema = z.looseObject({
  Binds: stringList,
  ContainerIDFile: z.string().nullish(),
  LogConfig: z.looseObject({ Type: z.string().nullish(), Config: stringMap }).nullish(),
  NetworkMode: z.string().nullish(),
  PortBindings: z.record(z.string(), z.array(portBindingSchema).nullish()).nullish(),
  RestartPolicy: z.looseObject({ Name: z.string().nullish(), MaximumRetryCount: z.number().int().nullish() }).nullish(),
  AutoRemove: z.boolean().nullish(),
  VolumesFrom: stringList,
  Mounts: z.array(z.looseObject({})).nullish(),
  ConsoleSize: z.tuple([z.number(), z.number()]).nullish(),
  CapAdd: stringList,
  CapDrop: stringList,
  CgroupnsMode: z.string().nullish(),
  Dns: stringList,
  DnsOptions: stringList,
  DnsSearch: stringList,
  ExtraHosts: stringList,
  GroupAdd: stringList,
  IpcMode: z.string().nullish(),
  PidMode: z.string().nullish(),
  UTSMode: z.string().nullish(),
  UsernsMode: z.string().nullish(),
  Links: stringList,
  OomScoreAdj: z.number().int().nullish(),
  Privileged: z.boolean().nullish(),
  PublishAllPorts: z.boolean().nullish(),
  ReadonlyRootfs: z.boolean().nullish(),
  SecurityOpt: stringList,
  StorageOpt: stringMap,
  Tmpfs: stringMap,
  ShmSize: z.number().int().nullish(),
  Sysctls: stringMap,
  Runtime: z.string().nullish(),
  Isolation: z.string().nullish(),
  /** Weight, 2 … 262144. */
  CpuShares: z.number().int().nullish(),
  /** Bytes. */
  Memory: z.number().int().nullish(),
  NanoCpus: z.number().int().nullish(),
  CgroupParent: z.string().nullish(),
  /** Microseconds. */
  CpuPeriod: z.number().int().nullish(),
  CpuQuota: z.number().int().nullish(),
  CpusetCpus: z.string().nullish(),
  CpusetMems: z.string().nullish(),
  Devices: z.array(z.looseObject({})).nullish(),
  MemoryReservation: z.number().int().nullish(),
  MemorySwap: z.number().int().nullish(),
  OomKillDisable: z.boolean().nullish(),
  Init: z.boolean().nullish(),
  PidsLimit: z.number().int().nullish(),
  Ulimits: z.array(z.looseObject({ Name: z.string(), Soft: z.number().int(), Hard: z.number().int() })).nullish(),
  MaskedPaths: stringList,
  ReadonlyPaths: stringList,
});

export const endpointConfigSchema = z.looseObject({
  IPAMConfig: z.looseObject({ IPv4Address: z.string().nullish(), IPv6Address: z.string().nullish() }).nullish(),
  Aliases: stringList,
  Links: stringList,
  MacAddress: z.string().nullish(),
});

/** Body of `POST /containers/create`: the configuration with two further members. */
export const containerCreateSchema = containerConfigSchema.extend({
  HostConfig: hostConfigSchema.nullish(),
  NetworkingConfig: z
    .looseObject({ EndpointsConfig: z.record(z.string(), endpointConfigSchema.nullish()).nullish() })
    .nullish(),
});

export type ContainerConfig = z.infer<typeof containerConfigSchema>;
export type HostConfig = z.infer<typeof hostConfigSchema>;
export type ContainerCreateRequest = z.infer<typeof containerCreateSchema>;
