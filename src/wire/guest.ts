import { z } from 'zod';

/*
 * Guest operating systems in our own API (`/bulkhead/guests`, `/bulkhead/guest-images`), both ways. Sizes are bytes, times milliseconds since
 * 1970. Ours on both ends, so what is unknown is refused.
 */

const MIB = 1024 * 1024;

const vcpus = z.number().int().min(1).max(255);
const memoryBytes = z
  .number()
  .int()
  .min(64 * MIB);
const diskBytes = z.number().int().min(1);

export const guestLaunchSchema = z.strictObject({
  image: z.string().min(1).max(200),
  name: z.string().optional(),
  vcpus: vcpus.optional(),
  memoryBytes: memoryBytes.optional(),
  maxVcpus: vcpus.optional(),
  maxMemoryBytes: memoryBytes.optional(),
  /** Undefined is the image's own size. */
  diskBytes: diskBytes.optional(),
  /** cloud-init's user-data, as it is. */
  userData: z.string().optional(),
  network: z.enum(['bridge', 'none']).optional(),
  firmware: z.enum(['bios', 'uefi']).optional(),
  /** Start it with the daemon too, unless somebody has stopped it. */
  autostart: z.boolean().optional(),
  /** Whether to wait for the guest's agent and for cloud-init; default true. */
  wait: z.boolean().optional(),
  timeoutSeconds: z.number().int().min(1).optional(),
});
export type GuestLaunchRequest = z.infer<typeof guestLaunchSchema>;

/** What is to change; undefined stays as it is. */
export const guestAllocationSchema = z.strictObject({
  vcpus: vcpus.optional(),
  memoryBytes: memoryBytes.optional(),
  diskBytes: diskBytes.optional(),
  /** Only write it down: it holds from the next start on. */
  nextBoot: z.boolean().optional(),
});
export type GuestAllocationRequest = z.infer<typeof guestAllocationSchema>;

/** What came of one wish. */
export const guestAllocationResultSchema = z.object({
  guest: z.lazy(() => guestSchema),
  changes: z.array(
    z.object({
      what: z.enum(['cpus', 'memory', 'disk.root']),
      asked: z.number(),
      /** As the guest confirmed it; undefined where nobody could ask it. */
      actual: z.number().optional(),
      /** Empty, or what is not as it was asked. */
      note: z.string(),
    }),
  ),
});
export type GuestAllocationResult = z.infer<typeof guestAllocationResultSchema>;

export const guestExecSchema = z.strictObject({
  command: z.array(z.string()).min(1),
  env: z.array(z.string()).optional(),
  /** base64. */
  input: z.string().optional(),
});
export type GuestExecRequest = z.infer<typeof guestExecSchema>;

export const guestExecResultSchema = z.object({
  exitCode: z.number(),
  /** base64, as the next. */
  stdout: z.string(),
  stderr: z.string(),
  isTruncated: z.boolean(),
});
export type GuestExecResult = z.infer<typeof guestExecResultSchema>;

export const guestSchema = z.object({
  kind: z.literal('vm'),
  id: z.string(),
  name: z.string(),
  image: z.string(),
  state: z.enum(['creating', 'starting', 'running', 'stopped']),
  /** Why it is stopped; empty while it runs. */
  reason: z.string(),
  createdAtMs: z.number(),
  startedAtMs: z.number().optional(),
  /** How it runs, or would: `tcg` is software emulation. */
  accelerator: z.enum(['kvm', 'tcg']),
  machineType: z.string(),
  firmware: z.enum(['bios', 'uefi']),
  vcpus: z.number(),
  memoryBytes: z.number(),
  maxVcpus: z.number(),
  maxMemoryBytes: z.number(),
  disk: z.object({ path: z.string(), virtualBytes: z.number() }),
  network: z.object({ name: z.string(), ipv4Address: z.string(), macAddress: z.string() }).optional(),
  pid: z.number().optional(),
  /** Whether an agent in the guest has opened its port. */
  isAgentOpen: z.boolean(),
  /** What cloud-init said of the first boot: `done`, `error` …; absent before it has. */
  cloudInit: z.object({ status: z.string(), detail: z.string() }).optional(),
  consoleLogPath: z.string(),
  autostart: z.boolean(),
});
export type GuestView = z.infer<typeof guestSchema>;

/** The stream of a launch: what is being done, and at its end the guest. */
export const guestLaunchMessageSchema = z.union([
  z.object({ phase: z.string(), text: z.string() }),
  z.object({ guest: guestSchema }),
  z.object({ error: z.string(), errorDetail: z.object({ code: z.number(), message: z.string() }) }),
]);
export type GuestLaunchMessage = z.infer<typeof guestLaunchMessageSchema>;

export const guestImageSchema = z.object({
  name: z.string(),
  /** False: known by name, and made or fetched at the first launch. */
  isPresent: z.boolean(),
  virtualBytes: z.number(),
  actualBytes: z.number(),
  /** Names of the guests whose disks stand on it. */
  usedBy: z.array(z.string()),
});
export type GuestImageView = z.infer<typeof guestImageSchema>;
