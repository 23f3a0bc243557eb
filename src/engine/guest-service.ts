import type { Readable, Writable } from 'node:stream';
import type {
  GuestAllocationRequest,
  GuestAllocationResult,
  GuestExecResult,
  GuestImageView,
  GuestLaunchRequest,
  GuestView,
} from '../wire/guest.ts';

/** Told while a launch goes on: which part of it, and what there is to say. */
export type LaunchProgress = (phase: 'image' | 'disk' | 'start' | 'boot' | 'cloud-init', text: string) => void;

export interface GuestConsole {
  readonly tty: true;
  readonly output: Readable;
  readonly input: Writable;
  close(): void;
}

/** Guest operating systems. */
export interface GuestService {
  /** Cancelled or failed before the guest was first up, it leaves nothing; a guest that did not get ready in time is kept, and is an error. */
  launch(request: GuestLaunchRequest, onProgress: LaunchProgress, signal: AbortSignal): Promise<GuestView>;
  list(): GuestView[];
  inspect(nameOrId: string): GuestView;
  start(nameOrId: string): Promise<GuestView>;
  /** Presses the power button; a guest that is still there after the time is an error, and runs on. `force` ends it at once. */
  stop(nameOrId: string, options: { force: boolean; timeoutSeconds: number | undefined }): Promise<GuestView>;
  /** Stops it as `stop` does, and starts it again with what its record says. */
  restart(nameOrId: string, options: { force: boolean; timeoutSeconds: number | undefined }): Promise<GuestView>;
  /** A running one only with `force`. */
  delete(nameOrId: string, options: { force: boolean }): Promise<void>;
  /** Changes vCPUs, memory and disk, at once if it runs; says what the guest made of it. */
  allocate(nameOrId: string, request: GuestAllocationRequest): Promise<GuestAllocationResult>;
  /** Runs a program through the guest's own agent, without network, to its end. */
  exec(
    nameOrId: string,
    spec: { command: readonly string[]; env: readonly string[]; input: Buffer | undefined },
    signal: AbortSignal,
  ): Promise<GuestExecResult>;
  /** A regular file of the guest, through its agent. */
  readFile(nameOrId: string, path: string): Readable;
  /** Makes or replaces a file of the guest. */
  writeFile(nameOrId: string, path: string, content: Readable): Promise<void>;
  /** What the serial console has said; `follow` goes on until the guest stops. Also of a stopped guest. */
  consoleLog(nameOrId: string, options: { follow: boolean }, signal: AbortSignal): Promise<Readable>;
  /** The serial console both ways, the end of what it has said before first. */
  attachConsole(nameOrId: string): Promise<GuestConsole>;
  listImages(): Promise<GuestImageView[]>;
  importImage(name: string, content: Readable, signal: AbortSignal): Promise<GuestImageView>;
  removeImage(name: string): Promise<void>;
}
