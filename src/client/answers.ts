import * as z from 'zod/mini';

/**
 * What the client reads of the daemon's answers. Tolerant: members may be missing or null (older daemons, Docker's Go nulls) and unknown ones
 * are kept. zod/mini because the whole of zod costs the CLI 20 ms at every start. Source: moby api/docs/v1.51.yaml.
 */
const text = z.pipe(
  z.nullish(z.string()),
  z.transform((value) => value ?? ''),
);
const count = z.pipe(
  z.nullish(z.number()),
  z.transform((value) => value ?? 0),
);
const flag = z.pipe(
  z.nullish(z.boolean()),
  z.transform((value) => value ?? false),
);
/** Minus one is Docker's "not computed". */
const countOrUnknown = z.pipe(
  z.nullish(z.number()),
  z.transform((value) => value ?? -1),
);
const texts = z.pipe(
  z.nullish(z.array(z.string())),
  z.transform((list) => list ?? []),
);
const textMap = z.pipe(
  z.nullish(z.record(z.string(), z.string())),
  z.transform((map) => map ?? {}),
);

/** Ours, beside Docker's members, in container list and inspect: the wall around the container. */
export const wallSchema = z.looseObject({
  wall: text,
  accelerator: text,
  driver: text,
  vcpus: z.nullish(z.number()),
  memoryBytes: z.nullish(z.number()),
  phases: z.nullish(z.array(z.looseObject({ name: z.string(), monotonicNs: z.union([z.number(), z.string()]) }))),
});

export const idAnswerSchema = z.looseObject({ Id: z.string(), Warnings: texts });

export const waitAnswerSchema = z.looseObject({
  StatusCode: z.number(),
  Error: z.nullish(z.looseObject({ Message: text })),
});

export const execInspectSchema = z.looseObject({
  ID: z.string(),
  Running: flag,
  /** Null until it has ended. */
  ExitCode: z.nullish(z.number()),
  Pid: count,
});

export const portSchema = z.looseObject({
  IP: z.nullish(z.string()),
  PrivatePort: z.number(),
  PublicPort: z.nullish(z.number()),
  Type: z.string(),
});

export const containerSummarySchema = z.looseObject({
  Id: z.string(),
  Names: texts,
  Image: text,
  ImageID: text,
  Command: text,
  Created: count,
  Ports: z.nullish(z.array(portSchema)),
  SizeRw: z.nullish(z.number()),
  SizeRootFs: z.nullish(z.number()),
  Labels: textMap,
  State: text,
  Status: text,
  Mounts: z.nullish(z.array(z.looseObject({ Type: text, Name: text, Source: text, Driver: text }))),
  NetworkSettings: z.nullish(z.looseObject({ Networks: z.nullish(z.record(z.string(), z.unknown())) })),
  Bulkhead: z.nullish(wallSchema),
});

const portMapSchema = z.nullish(
  z.record(z.string(), z.nullish(z.array(z.looseObject({ HostIp: text, HostPort: text })))),
);

export const containerInspectSchema = z.looseObject({
  Id: z.string(),
  Name: text,
  State: z.looseObject({
    Status: text,
    Running: flag,
    Paused: flag,
    Restarting: flag,
    ExitCode: count,
    Error: text,
  }),
  Config: z.looseObject({ Tty: flag, OpenStdin: flag, AttachStdin: flag, StopSignal: z.nullish(z.string()) }),
  HostConfig: z.looseObject({ AutoRemove: flag, Isolation: z.nullish(z.string()) }),
  NetworkSettings: z.nullish(z.looseObject({ Ports: portMapSchema })),
  Bulkhead: z.nullish(wallSchema),
});

export const imageSummarySchema = z.looseObject({
  Id: z.string(),
  RepoTags: texts,
  RepoDigests: texts,
  Created: count,
  Size: count,
  SharedSize: countOrUnknown,
  Containers: countOrUnknown,
  Labels: textMap,
});

export const imageHistorySchema = z.looseObject({
  Id: text,
  Created: count,
  CreatedBy: text,
  Size: count,
  Comment: text,
  Tags: texts,
});

export const imageDeletedSchema = z.looseObject({ Untagged: z.nullish(z.string()), Deleted: z.nullish(z.string()) });

export const networkSchema = z.looseObject({
  Id: z.string(),
  Name: text,
  Driver: text,
  Scope: text,
  Created: text,
  EnableIPv6: flag,
  EnableIPv4: z.pipe(
    z.nullish(z.boolean()),
    z.transform((value) => value ?? true),
  ),
  Internal: flag,
  Labels: textMap,
});

export const versionSchema = z.looseObject({
  Platform: z.nullish(z.looseObject({ Name: text })),
  Version: text,
  ApiVersion: text,
  MinAPIVersion: text,
  GitCommit: text,
  GoVersion: text,
  Os: text,
  Arch: text,
  KernelVersion: text,
  Experimental: flag,
  BuildTime: text,
  Components: z.nullish(z.array(z.looseObject({ Name: text, Version: text, Details: textMap }))),
});

export const infoSchema = z.looseObject({
  ID: text,
  Warnings: texts,
  /** Of a daemon of ours only. */
  Bulkhead: z.nullish(
    z.looseObject({ machinePool: z.nullish(z.looseObject({ size: z.number(), waiting: z.number() })) }),
  ),
});

export const eventSchema = z.looseObject({
  Type: text,
  Action: text,
  Actor: z.looseObject({ ID: text, Attributes: textMap }),
  scope: text,
  time: count,
  timeNano: count,
});

/** One message of a pull, push, load or build. */
export const progressSchema = z.looseObject({
  id: z.nullish(z.string()),
  status: z.nullish(z.string()),
  stream: z.nullish(z.string()),
  progress: z.nullish(z.string()),
  progressDetail: z.nullish(
    z.looseObject({
      current: z.nullish(z.number()),
      total: z.nullish(z.number()),
      hidecounts: z.nullish(z.boolean()),
      units: z.nullish(z.string()),
    }),
  ),
  error: z.nullish(z.string()),
  errorDetail: z.nullish(z.looseObject({ code: z.nullish(z.number()), message: text })),
  aux: z.nullish(z.unknown()),
});

export const loginAnswerSchema = z.looseObject({ Status: text, IdentityToken: text });

const cpuStatsSchema = z.looseObject({
  cpu_usage: z.looseObject({ total_usage: count }),
  system_cpu_usage: count,
  online_cpus: count,
});

/** One sample of `stats`, with the one before it; all zero for a container that does not run. */
export const statsSchema = z.looseObject({
  id: text,
  name: text,
  cpu_stats: cpuStatsSchema,
  precpu_stats: cpuStatsSchema,
  memory_stats: z.nullish(
    z.looseObject({ usage: count, limit: count, stats: z.nullish(z.record(z.string(), z.number())) }),
  ),
  pids_stats: z.nullish(z.looseObject({ current: count })),
  networks: z.nullish(z.record(z.string(), z.looseObject({ rx_bytes: count, tx_bytes: count }))),
  blkio_stats: z.nullish(
    z.looseObject({ io_service_bytes_recursive: z.nullish(z.array(z.looseObject({ op: text, value: count }))) }),
  ),
  /** Ours: what a machine costs the host. */
  Bulkhead: z.nullish(z.looseObject({ machine: z.nullish(z.looseObject({ pssBytes: count, cpuNs: count })) })),
});

export const topSchema = z.looseObject({
  Titles: texts,
  Processes: z.pipe(
    z.nullish(z.array(z.array(z.string()))),
    z.transform((rows) => rows ?? []),
  ),
});

export const updatedSchema = z.looseObject({ Warnings: texts });

export const diskUsageSchema = z.looseObject({
  LayersSize: count,
  Images: z.pipe(
    z.nullish(z.array(imageSummarySchema)),
    z.transform((images) => images ?? []),
  ),
  Containers: z.pipe(
    z.nullish(z.array(containerSummarySchema)),
    z.transform((containers) => containers ?? []),
  ),
  Volumes: z.pipe(
    z.nullish(z.array(z.looseObject({ UsageData: z.nullish(z.looseObject({ Size: count, RefCount: count })) }))),
    z.transform((volumes) => volumes ?? []),
  ),
});

export const containersPrunedSchema = z.looseObject({ ContainersDeleted: texts, SpaceReclaimed: count });
export const imagesPrunedSchema = z.looseObject({
  ImagesDeleted: z.nullish(z.array(imageDeletedSchema)),
  SpaceReclaimed: count,
});
export const networksPrunedSchema = z.looseObject({ NetworksDeleted: texts });

export type WallAnswer = z.infer<typeof wallSchema>;
export type ContainerPort = z.infer<typeof portSchema>;
export type ContainerSummary = z.infer<typeof containerSummarySchema>;
export type ContainerInspect = z.infer<typeof containerInspectSchema>;
export type ImageSummary = z.infer<typeof imageSummarySchema>;
export type ImageHistoryEntry = z.infer<typeof imageHistorySchema>;
export type ImageDeleted = z.infer<typeof imageDeletedSchema>;
export type NetworkInspect = z.infer<typeof networkSchema>;
export type VersionAnswer = z.infer<typeof versionSchema>;
export type InfoAnswer = z.infer<typeof infoSchema>;
export type EventMessage = z.infer<typeof eventSchema>;
export type ProgressMessage = z.infer<typeof progressSchema>;
export type ExecInspect = z.infer<typeof execInspectSchema>;
export type WaitAnswer = z.infer<typeof waitAnswerSchema>;
export type StatsAnswer = z.infer<typeof statsSchema>;
export type TopAnswer = z.infer<typeof topSchema>;
export type DiskUsageAnswer = z.infer<typeof diskUsageSchema>;
