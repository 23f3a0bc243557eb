import type { Readable, Writable } from 'node:stream';
import type { ContainerState } from '../core/container-state.ts';
import type { ContainerConfig, ContainerCreateRequest, HostConfig } from '../wire/docker/container-config.ts';
import type { Digest } from '../core/digest.ts';
import type { ImageReference } from '../core/image-reference.ts';
import type { ImageHistoryEntry } from '../oci/image-history.ts';
import type { LoadedImage, LoadOptions } from '../oci/image-load.ts';
import type { PullOptions, PullResult } from '../oci/image-pull.ts';
import type { PushedTag, PushOptions } from '../oci/image-push.ts';
import type { ImageRecord } from '../oci/image-records.ts';
import type { RemovedEntry } from '../oci/image-removal.ts';
import type { RegistryCredentials } from '../oci/registry/authorizer.ts';
import type { GuestService } from './guest-service.ts';
import type { HealthReport } from '../wire/shim-health.ts';
import type { ContainerUpdateRequest } from '../wire/docker/container-update.ts';
import type { UsageService } from './container-usage.ts';

/** What the API serves: the engine's use cases by subject. Every method throws `EngineError`. */
export interface Engine {
  readonly containers: ContainerService;
  readonly execs: ExecService;
  readonly usage: UsageService;
  readonly images: ImageService;
  readonly networks: NetworkService;
  readonly events: EventLog;
  readonly system: SystemService;
  readonly guests: GuestService;
}

/** The wall around a container. */
export type Isolation = 'vm' | 'os';

export interface WallFacts {
  readonly wall: Isolation;
  /** What runs the guest's instructions; `none` for the os wall. `tcg` is software emulation and is named so everywhere. */
  readonly accelerator: 'kvm' | 'tcg' | 'none';
  readonly driver: 'qemu' | 'kvm' | 'runc';
  readonly vcpus: number;
  /** What the container may use, bytes: its limit, or else the machine's memory (vm) or the host's (os). */
  readonly memoryBytes: number;
}

/** Everything there is to know of a container; codecs make Docker's JSON of it. */
export interface ContainerView {
  readonly id: string;
  /** Without Docker's leading slash. */
  readonly name: string;
  readonly createdAtMs: number;
  readonly imageId: string;
  /** As the user wrote it. */
  readonly imageReference: string;
  /** The user's configuration over the image's. */
  readonly config: ContainerConfig;
  readonly hostConfig: HostConfig;
  /** Program and arguments that are run. */
  readonly command: readonly string[];
  readonly state: ContainerState;
  /** Of one with a health check, once it was started. */
  readonly health?: HealthReport;
  readonly restartCount: number;
  readonly logPath: string;
  readonly hostnamePath: string;
  readonly hostsPath: string;
  readonly resolvConfPath: string;
  readonly facts: WallFacts;
  readonly networks: Readonly<Record<string, EndpointView>>;
  /** `80/tcp` → where it is published; an exposed but unpublished port has null. */
  readonly ports: Readonly<Record<string, readonly PublishedPort[] | null>>;
  /** Moments of the last start: name and CLOCK_MONOTONIC nanoseconds, in order. */
  readonly phases: readonly { readonly name: string; readonly monotonicNs: number }[];
  /** How the machine of the last start came to the container (vm wall). */
  readonly beginning?: 'booted' | 'restored' | 'pooled' | 'prepared';
}

export interface EndpointView {
  readonly networkId: string;
  readonly endpointId: string;
  readonly macAddress: string;
  readonly ipv4Address: string;
  readonly ipv4PrefixLength: number;
  readonly ipv4Gateway: string;
}

export interface PublishedPort {
  readonly hostIp: string;
  readonly hostPort: number;
}

/** Docker's filters, already parsed: key → values. Unknown keys are refused by the service. */
export type Filters = ReadonlyMap<string, readonly string[]>;

export interface ContainerService {
  /** `name` is Docker's (optional leading slash), or undefined for a generated one. */
  create(request: ContainerCreateRequest, name: string | undefined): Promise<{ id: string; warnings: string[] }>;
  list(options: { all: boolean; limit: number; filters: Filters }): ContainerView[];
  /** By full id, exact name or unique id prefix. */
  inspect(nameOrId: string): ContainerView;
  start(nameOrId: string): Promise<'started' | 'already-running'>;
  /** `timeoutSeconds` undefined: the container's StopTimeout, else 10; negative: for ever. */
  stop(
    nameOrId: string,
    options: { timeoutSeconds: number | undefined; signal: string | undefined },
  ): Promise<'stopped' | 'not-running'>;
  restart(nameOrId: string, options: { timeoutSeconds: number | undefined; signal: string | undefined }): Promise<void>;
  kill(nameOrId: string, signal: string | undefined): Promise<void>;
  /** Its processes stand still, wherever they are, until `unpause`. */
  pause(nameOrId: string): Promise<void>;
  unpause(nameOrId: string): Promise<void>;
  /** Other limits, in force at once where it runs, and another restart policy. */
  update(nameOrId: string, request: ContainerUpdateRequest): Promise<{ warnings: string[] }>;
  resize(nameOrId: string, size: TerminalSize): Promise<void>;
  rename(nameOrId: string, name: string): Promise<void>;
  /** Checks at once that the container exists; `result` settles when the condition holds. */
  wait(nameOrId: string, condition: WaitCondition, signal: AbortSignal): { result: Promise<WaitResult> };
  remove(nameOrId: string, options: { force: boolean; removeVolumes: boolean }): Promise<void>;
  /** Removes stopped containers; ids of the removed. */
  prune(filters: Filters): Promise<{ deleted: string[]; reclaimedBytes: number }>;
  /** Legal for a container that is not started yet: output then begins with its first byte. */
  attach(nameOrId: string, options: AttachOptions): Promise<Attachment>;
  logs(nameOrId: string, options: LogOptions, signal: AbortSignal): Promise<{ tty: boolean; output: Readable }>;
}

export interface TerminalSize {
  /** Character cells. */
  readonly height: number;
  readonly width: number;
}

export type WaitCondition = 'not-running' | 'next-exit' | 'removed';

export interface WaitResult {
  readonly exitCode: number;
  /** Why there is no true exit code, or empty. */
  readonly error: string;
}

export interface AttachOptions {
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  /** Replay what was logged so far first. */
  readonly logs: boolean;
  /** Follow (otherwise end after the replay). */
  readonly stream: boolean;
  /** Docker's notation, `ctrl-p,ctrl-q`; undefined is the default. Only looked for when the container has a terminal. */
  readonly detachKeys: string | undefined;
}

export interface Attachment {
  readonly tty: boolean;
  /** Docker's multiplexed frames, or raw bytes for a terminal; ends when the container's output does, or on detach. */
  readonly output: Readable;
  /** Its end is the end of stdin (Docker's StdinOnce rules apply); undefined when stdin was not asked for. */
  readonly input: Writable | undefined;
  /** The client went away. Idempotent. */
  close(): void;
}

/** Further processes in running containers. They are known until a few minutes after their end, and no longer than the daemon lives. */
export interface ExecService {
  /** A plan only: nothing runs before `start`. */
  create(nameOrId: string, request: ExecRequest): Promise<{ id: string }>;
  /**
   * Once only. Resolves when the program runs, or with its reason not to in the output. Detached there are no streams, and the reason is
   * thrown.
   */
  start(id: string, options: ExecStartOptions): Promise<Attachment | undefined>;
  /** Waits up to 10 s for the start. */
  resize(id: string, size: TerminalSize): Promise<void>;
  inspect(id: string): ExecView;
}

export interface ExecRequest {
  /** Program and arguments. */
  readonly command: readonly string[];
  readonly tty: boolean;
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  /** Over the container's: `NAME=value`; a bare `NAME` takes a variable away. */
  readonly environment: readonly string[];
  /** `user[:group]`; empty for the container's. */
  readonly user: string;
  /** Empty for the container's. */
  readonly workingDirectory: string;
  readonly isPrivileged: boolean;
  /** As in `AttachOptions`. */
  readonly detachKeys: string | undefined;
  readonly size: TerminalSize | undefined;
}

export interface ExecStartOptions {
  readonly detach: boolean;
  /** Of the terminal; undefined for that of the request. */
  readonly size: TerminalSize | undefined;
}

export interface ExecView {
  readonly id: string;
  readonly containerId: string;
  readonly request: Pick<ExecRequest, 'command' | 'tty' | 'stdin' | 'stdout' | 'stderr' | 'user' | 'isPrivileged'>;
  readonly isRunning: boolean;
  /** Null until it has ended. */
  readonly exitCode: number | null;
  /** 0 unless it runs. The host's number (os wall) or the guest's (vm wall). */
  readonly pid: number;
}

export interface LogOptions {
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly follow: boolean;
  /** Nanoseconds since 1970; undefined is no bound. */
  readonly sinceNs: bigint | undefined;
  readonly untilNs: bigint | undefined;
  /** The last so many lines; undefined is all. */
  readonly tail: number | undefined;
  readonly timestamps: boolean;
  readonly details: boolean;
}

export interface ImageService {
  /** Newest first. Without `all`, unnamed images that others were built on are left out. */
  list(options: { all: boolean; filters: Filters }): ImageRecord[];
  /** By full id, repo[:tag], repo@digest, or the start of an id. */
  resolve(nameOrId: string): ImageRecord;
  /** Ids of the containers made from it. */
  containersOf(id: Digest): string[];
  history(image: ImageRecord): ImageHistoryEntry[];
  /** Bytes of blobs and unpacked layers, each counted once. */
  diskUsage(): Promise<{ blobBytes: number; layerBytes: number }>;
  /** Without tag and digest: `latest`. */
  pull(reference: ImageReference, options: PullOptions): Promise<PullResult>;
  /** Without a tag: every tag of the repository. */
  push(reference: ImageReference, options: PushOptions): Promise<PushedTag[]>;
  /** Checks credentials; `unauthorized` when the registry refuses them. `serverAddress` empty: docker.io. */
  login(serverAddress: string, credentials: RegistryCredentials, signal: AbortSignal): Promise<void>;
  tag(source: string, target: ImageReference): ImageRecord;
  /** `prune`: parents that are left without a name go, too. */
  remove(nameOrId: string, options: { force: boolean; prune: boolean }): Promise<RemovedEntry[]>;
  /** Removes unnamed images that no container uses; with `dangling=false` named ones too. */
  prune(filters: Filters): Promise<{ removed: RemovedEntry[]; reclaimedBytes: number }>;
  load(source: Readable, options: LoadOptions): Promise<LoadedImage[]>;
  save(names: readonly string[]): Readable;
  /** A tar of a root file system, plain or compressed, becomes an image of one layer. */
  import(source: AsyncIterable<Uint8Array>, options: ImportOptions): Promise<ImageRecord>;
}

export interface ImportOptions {
  readonly target: ImageReference | undefined;
  /** What the image's history says of it. */
  readonly comment: string;
  readonly signal: AbortSignal;
}

export interface NetworkService {
  list(filters: Filters): NetworkView[];
  inspect(nameOrId: string): NetworkView;
}

export interface NetworkView {
  readonly id: string;
  readonly name: string;
  readonly driver: 'bridge' | 'null' | 'host';
  readonly createdAtMs: number;
  readonly subnets: readonly { readonly subnet: string; readonly gateway: string }[];
  readonly options: Readonly<Record<string, string>>;
  readonly labels: Readonly<Record<string, string>>;
  /** Container id → its endpoint, of the running ones. */
  readonly endpoints: Readonly<Record<string, EndpointView & { readonly containerName: string }>>;
}

/** Something that happened, as Docker tells it. */
export interface EngineEvent {
  readonly type: 'container' | 'image' | 'network' | 'volume' | 'daemon';
  readonly action: string;
  readonly actorId: string;
  readonly attributes: Readonly<Record<string, string>>;
  /** Nanoseconds since 1970. */
  readonly timeNs: bigint;
}

export interface EventLog {
  publish(event: Omit<EngineEvent, 'timeNs'>): void;
  /** Past events in the window (256 are kept), then live ones until `untilNs` or the signal. Filters per Docker's rules. */
  subscribe(options: {
    sinceNs: bigint | undefined;
    untilNs: bigint | undefined;
    filters: Filters;
    signal: AbortSignal;
  }): AsyncIterable<EngineEvent>;
}

export interface SystemService {
  info(): Promise<SystemInfo>;
}

export interface SystemInfo {
  readonly id: string;
  readonly hostName: string;
  readonly kernelVersion: string;
  readonly operatingSystem: string;
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly dataRoot: string;
  readonly containers: {
    readonly total: number;
    readonly running: number;
    readonly paused: number;
    readonly stopped: number;
  };
  readonly images: number;
  readonly defaultIsolation: Isolation;
  readonly allowedIsolations: readonly Isolation[];
  readonly accelerator: 'kvm' | 'tcg' | 'none';
  readonly machineDriver: string;
  /** Machines that wait for a container; undefined where none are kept ready. */
  readonly machinePool: { readonly size: number; readonly waiting: number; readonly prepared: number } | undefined;
  readonly cgroupVersion: 1 | 2;
  readonly registryMirrors: readonly string[];
  readonly insecureRegistries: readonly string[];
  readonly labels: readonly string[];
  readonly warnings: readonly string[];
}
