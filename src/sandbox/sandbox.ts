import type { Readable, Writable } from 'node:stream';
import type {
  Assignment,
  CreateContainer,
  CreateProcess,
  SandboxConfig,
  SandboxExit,
  SandboxStatus,
  UpdateContainer,
} from '../wire/shim.ts';
import type { HealthCheck, HealthReport } from '../wire/shim-health.ts';
import type { ContainerStats, ProcessList } from '../wire/shim-usage.ts';

/**
 * A running sandbox as the engine sees it, whatever its wall. `process` is `init` for the container's own process.
 * Every method throws `EngineError`; a sandbox whose shim is gone throws `unavailable`.
 */
export interface Sandbox {
  readonly id: string;
  status(): Promise<SandboxStatus>;
  /** A waiting machine becomes this sandbox. `wrong-state` if it does not wait. */
  assign(assignment: Assignment): Promise<void>;
  createContainer(containerId: string, body: CreateContainer): Promise<void>;
  /** A further process of a running container. One that was not to be started is forgotten; one that ended, some minutes later. */
  createProcess(containerId: string, process: string, body: CreateProcess): Promise<void>;
  start(containerId: string, process: string): Promise<{ pid: number }>;
  kill(containerId: string, process: string, signal: number): Promise<void>;
  /** All of the container's processes stand still until `unpause`. */
  pause(containerId: string): Promise<void>;
  unpause(containerId: string): Promise<void>;
  /** Other limits for a running container. `limit-exceeded`, with the numbers, where a machine does not have what is asked for. */
  update(containerId: string, body: UpdateContainer): Promise<void>;
  /** The running container is probed from now on, by the shim; again is no error. */
  startHealth(containerId: string, check: HealthCheck): Promise<void>;
  /** Once it is newer than `after`. `wrong-state` when the container ends. */
  health(containerId: string, after: number | undefined, signal: AbortSignal): Promise<HealthReport>;
  stats(containerId: string): Promise<ContainerStats>;
  top(containerId: string): Promise<ProcessList>;
  resize(containerId: string, process: string, size: { height: number; width: number }): Promise<void>;
  /** Resolves once the shim has registered the reader: every later byte is in the stream. */
  output(containerId: string, process: string, options: OutputOptions): Promise<Readable>;
  /** Its end closes the process's stdin unless `keepOpen`. */
  input(containerId: string, process: string, options: { keepOpen: boolean }): Writable;
  wait(containerId: string, process: string, signal: AbortSignal): Promise<SandboxExit>;
  stop(deadlineMs: number): Promise<void>;
  /** The exit is on record here: the shim may go. Tells the moments of its life when nothing of the sandbox is left. */
  release(): Promise<SandboxStatus['phases']>;
}

export interface OutputOptions {
  /** `start` is legal until the process writes more than the shim's buffer holds. */
  readonly from: 'start' | 'now';
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly signal: AbortSignal;
}

/** Makes sandboxes and finds those that an earlier daemon left running. */
export interface SandboxLauncher {
  /** The signal ends a launch that is not through, and what it has started. */
  launch(config: SandboxConfig, signal?: AbortSignal): Promise<Sandbox>;
  /** Boots the machine of a `template` configuration and saves it; it is gone when this returns. */
  makeTemplate(config: SandboxConfig, signal: AbortSignal): Promise<void>;
  /** The sandbox in this directory if its shim answers. */
  adopt(id: string, runtimeDir: string): Promise<Sandbox | undefined>;
  /** What the shim left on disk about a container that ended, if it did. */
  readExit(stateDir: string, containerId: string): Promise<SandboxExit | undefined>;
}
