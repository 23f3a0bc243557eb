import type { Logger } from 'pino';
import type { HostResources, MachineDefaults } from '../core/resources.ts';
import type { ImageStore } from '../oci/image-store.ts';
import type { MachineHost } from '../machine/machine-host.ts';
import type { MachineTemplates } from '../machine/machine-templates.ts';
import type { BridgeNetwork } from '../network/bridge-network.ts';
import type { Clock } from '../platform/clock.ts';
import type { LayerMounts } from '../sandbox/os/layer-mounts.ts';
import type { SandboxLauncher } from '../sandbox/sandbox.ts';
import type { MachinePool } from '../sandbox/vm/machine-pool.ts';
import type { ContainerTable } from './container-table.ts';
import type { EventLog, Isolation } from './engine.ts';

/** What the engine's parts work with: made once by the daemon. */
export interface EngineContext {
  readonly table: ContainerTable;
  readonly images: ImageStore;
  readonly events: EventLog;
  readonly launcher: SandboxLauncher;
  readonly network: BridgeNetwork;
  readonly machine: MachineHost;
  /** Saved machines; absent where none can be made, or where the settings forbid it: then every machine boots. */
  readonly templates: MachineTemplates | undefined;
  /** Machines that wait for a container. */
  readonly pool: MachinePool | undefined;
  readonly layerMounts: LayerMounts;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly host: HostResources;
  readonly machineDefaults: MachineDefaults;
  /** What can be given to a container on the host's kernel. */
  readonly hostCapabilities: ReadonlySet<string>;
  readonly hostCgroupVersion: 1 | 2;
  readonly runcPath: string;
  /** See `SandboxPlanInput`. */
  readonly initPath: string;
  readonly dataRoot: string;
  readonly execRoot: string;
  /** Prefix of every interface name of ours. */
  readonly interfacePrefix: string;
  readonly defaultIsolation: Isolation;
  readonly allowedIsolations: readonly Isolation[];
}
