import { transition, type ContainerEvent, type ContainerState } from '../core/container-state.ts';
import { EngineError } from '../core/errors.ts';
import type { ContainerConfig, HostConfig } from '../wire/docker/container-config.ts';
import type { EndpointView, Isolation, PublishedPort, WallFacts } from './engine.ts';

/** A container as it is kept: the user's wish, what was decided at creation, and its state. */
export interface ContainerRecord {
  readonly id: string;
  readonly name: string;
  readonly createdAtMs: number;
  readonly imageId: string;
  readonly imageReference: string;
  readonly isolation: Isolation;
  readonly config: ContainerConfig;
  readonly hostConfig: HostConfig;
  readonly command: readonly string[];
  readonly hostname: string;
  /** Decided at creation and never changed behind the user's back. */
  readonly facts: WallFacts;
  readonly state: ContainerState;
  /** How often its restart policy has started it since it was last started by hand. */
  readonly restartCount: number;
  /** A client stopped or killed it since its last start: what `unless-stopped` goes by. */
  readonly isStoppedByHand?: boolean;
  /** Present from before the sandbox is made until nothing of it is left on the host: what reconciliation works from. */
  readonly sandbox?: SandboxRecord;
  /** Of the last start, kept for inspect after the sandbox is gone. */
  readonly lastPhases?: SandboxRecord['phases'];
  readonly lastBeginning?: MachineBeginning;
}

/** How a machine came to its container: it booted, came from a saved one, had waited, or had waited with the image's layers. */
export type MachineBeginning = 'booted' | 'restored' | 'pooled' | 'prepared';

export interface SandboxRecord {
  readonly runtimeDir: string;
  readonly network?: EndpointView & { readonly networkName: string; readonly hostInterface: string };
  /** Ports as held: `80/tcp` → host ends. */
  readonly ports: Readonly<Record<string, readonly PublishedPort[]>>;
  /** Of the machine process (vm wall). */
  readonly uid?: number;
  /** The tap in the machine's network slot (vm wall). */
  readonly tapName?: string;
  readonly beginning?: MachineBeginning;
  readonly cgroupPath: string;
  readonly phases: readonly { readonly name: string; readonly monotonicNs: number }[];
}

/** The state that an event leads to; `wrong-state` if it does not belong to the present one. */
export function nextState(record: ContainerRecord, event: ContainerEvent): ContainerRecord['state'] {
  const next = transition(record.state, event);
  if (next) return next;
  const { id, state } = record;
  throw new EngineError('wrong-state', `container ${id} is ${state.status}: '${event.type}' is not possible`);
}
