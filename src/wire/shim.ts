import { z } from 'zod';

/** The daemon's side of the sandbox protocol; the specification is native/protocol/src/lib.rs. */
export const PROTOCOL_GENERATION = 2;

export interface SandboxConfig {
  readonly generation: number;
  readonly id: string;
  readonly runtimeDir: string;
  readonly stateDir: string;
  readonly hostname: string;
  readonly network?: SandboxNetwork;
  readonly ports: readonly SandboxPort[];
  /** `template`: no sandbox, but a machine that is booted, saved and ended. */
  readonly wall: 'vm' | 'os' | 'template';
  /** The machine is made ready and waits for its assignment. */
  readonly pool?: PoolConfig;
  readonly machine?: MachineConfig;
  readonly os?: { readonly runcPath: string };
}

export interface MachineConfig {
  readonly driver: 'qemu';
  readonly accelerator: 'kvm' | 'tcg';
  readonly qemuPath: string;
  readonly kernelPath: string;
  readonly initramfsPath: string;
  readonly kernelArguments: readonly string[];
  readonly vcpus: number;
  readonly memoryBytes: number;
  readonly cpuModel: string;
  readonly uid: number;
  readonly cgroupPath: string;
  readonly tapName: string;
  /** A saved state to start from; with the wall `template`, to write. */
  readonly template?: MachineTemplate;
}

/** A machine's saved state: two files that belong together. */
export interface MachineTemplate {
  readonly ramPath: string;
  readonly statePath: string;
}

export interface PoolConfig {
  /** A container that is run and removed before the machine waits. */
  readonly warmUp: CreateContainer;
  readonly rounds: number;
  readonly keepLayers: boolean;
  readonly deadlineMs: number;
}

/** What a waiting machine lacked of a `SandboxConfig`. */
export type Assignment = Pick<SandboxConfig, 'stateDir' | 'hostname' | 'network' | 'ports'>;

export interface SandboxNetwork {
  readonly bridge: string;
  readonly hostInterface: string;
  readonly interface: string;
  readonly macAddress: string;
  readonly ipv4Address: string;
  readonly ipv4PrefixLength: number;
  readonly ipv4Gateway: string;
  readonly mtu: number;
}

export const sandboxPortSchema = z.object({
  protocol: z.string(),
  hostIp: z.string().default(''),
  hostPort: z.number().int(),
  containerPort: z.number().int(),
});
export type SandboxPort = z.infer<typeof sandboxPortSchema>;

export interface CreateContainer {
  readonly spec: object;
  readonly rootfs: {
    readonly layers: readonly { readonly imagePath: string; readonly sizeBytes: number; readonly mountPath: string }[];
    readonly writablePath: string;
    readonly readOnly: boolean;
  };
  readonly stdin: boolean;
  readonly stdinOnce: boolean;
  readonly terminalSize?: { readonly height: number; readonly width: number };
  readonly files: Readonly<Record<string, string>>;
  readonly log: {
    readonly driver: string;
    readonly path: string;
    readonly maxSizeBytes: number;
    readonly maxFiles: number;
  };
  readonly user: string;
  readonly additionalGroups: readonly string[];
  readonly ephemeral: boolean;
}

export interface CreateProcess {
  /** The runtime-spec `process` object. */
  readonly process: object;
  readonly user: string;
  readonly stdin: boolean;
  readonly terminalSize?: { readonly height: number; readonly width: number };
}

export interface UpdateContainer {
  /** The runtime-spec `linux.resources`, with only what changes. */
  readonly resources: object;
}

export const exitSchema = z.object({
  exitCode: z.number().int(),
  oomKilled: z.boolean().default(false),
  finishedAtNs: z.number().default(0),
  error: z.string().default(''),
});
export type SandboxExit = z.infer<typeof exitSchema>;

/** The file that the shim leaves in the state directory. */
export const exitFileSchema = z.object({ containers: z.record(z.string(), exitSchema) });

export const startedSchema = z.object({ pid: z.number().int() });

export const sandboxStatusSchema = z.object({
  generation: z.number().int(),
  state: z.string(),
  shimPid: z.number().int(),
  machinePid: z.number().int().default(0),
  containers: z.record(
    z.string(),
    z.object({
      state: z.string(),
      pid: z.number().int().default(0),
      paused: z.boolean().default(false),
      exit: exitSchema.nullish(),
    }),
  ),
  ports: z.array(sandboxPortSchema).default([]),
  phases: z.array(z.object({ name: z.string(), monotonicNs: z.number() })).default([]),
});
export type SandboxStatus = z.infer<typeof sandboxStatusSchema>;

export const failureSchema = z.object({ code: z.string(), message: z.string() });
export const readinessSchema = z.union([z.object({ ready: z.literal(true) }), failureSchema]);
