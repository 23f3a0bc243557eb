import { z } from 'zod';

/** What a container uses and what runs in it: native/protocol/src/usage.rs. In the vm wall these are a guest's words. */
const count = z.number().nonnegative().default(0);

export const containerStatsSchema = z.object({
  /** Nanoseconds since 1970. */
  readAtNs: count,
  cpu: z.object({
    totalNs: count,
    userNs: count,
    systemNs: count,
    ofAllCpusNs: count,
    onlineCpus: count,
    periods: count,
    throttledPeriods: count,
    throttledNs: count,
  }),
  memory: z.object({
    usageBytes: count,
    maxUsageBytes: count,
    limitBytes: count,
    failures: count,
    details: z.record(z.string(), count).default({}),
  }),
  pids: z.object({ current: count, limit: count }),
  blockIo: z
    .array(
      z.object({
        major: count,
        minor: count,
        readBytes: count,
        writtenBytes: count,
        reads: count,
        writes: count,
      }),
    )
    .default([]),
  networks: z
    .record(
      z.string(),
      z.object({
        rxBytes: count,
        rxPackets: count,
        rxErrors: count,
        rxDropped: count,
        txBytes: count,
        txPackets: count,
        txErrors: count,
        txDropped: count,
      }),
    )
    .default({}),
  machine: z.object({ pssBytes: count, cpuNs: count }).nullish(),
});
export type ContainerStats = z.infer<typeof containerStatsSchema>;

const processFactsSchema = z.object({
  pid: z.number().int(),
  parentPid: z.number().int().default(0),
  group: z.number().int().default(0),
  session: z.number().int().default(0),
  uid: z.number().int().default(0),
  terminal: z.string().default(''),
  state: z.string().default(''),
  threads: count,
  nice: z.number().int().default(0),
  startedAtNs: count,
  cpuNs: count,
  virtualBytes: count,
  residentBytes: count,
  name: z.string().default(''),
  arguments: z.array(z.string()).default([]),
});
export type ProcessFacts = z.infer<typeof processFactsSchema>;

export const processListSchema = z.object({
  readAtNs: count,
  memoryBytes: count,
  truncated: z.boolean().default(false),
  processes: z.array(processFactsSchema).default([]),
});
export type ProcessList = z.infer<typeof processListSchema>;
