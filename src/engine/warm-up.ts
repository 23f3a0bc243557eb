import { stat } from 'node:fs/promises';
import { planResources, type HostResources, type MachineDefaults } from '../core/resources.ts';
import { copySparse } from '../platform/ffi/files.ts';
import type { ContainerConfig } from '../wire/docker/container-config.ts';
import type { CreateContainer } from '../wire/shim.ts';
import { buildSpec } from './oci-spec.ts';
import { availableCapabilities } from './process-plan.ts';

/** The program in the warm-up's layer (vm-images/warm-up). */
const PROGRAM = '/bin/warm-up';

export interface WarmUpHost {
  readonly host: HostResources;
  readonly machineDefaults: MachineDefaults;
  readonly machine: { readonly warmUpPath: string; readonly scratchTemplatePath: string };
  readonly hostCapabilities: ReadonlySet<string>;
}

/** A container of an image, told without what its user gave to it: its environment may hold secrets, and machines are prepared for whoever comes. */
export interface WarmUpContainer {
  readonly config: ContainerConfig;
  readonly command: readonly string[];
  readonly layers: CreateContainer['rootfs']['layers'];
}

/** The container that a machine runs before it waits: like any other, so that what the others need is ready. */
export async function planWarmUp(on: WarmUpHost, id: string, writablePath: string): Promise<CreateContainer> {
  const { warmUpPath } = on.machine;
  const { size: sizeBytes } = await stat(warmUpPath);
  const layers = [{ imagePath: warmUpPath, sizeBytes, mountPath: '' }];
  return await planImageWarmUp(on, { config: {}, command: [PROGRAM], layers }, id, writablePath);
}

/** The same with an image's own program. Makes the scratch disk. */
export async function planImageWarmUp(
  on: WarmUpHost,
  { config, command, layers }: WarmUpContainer,
  id: string,
  writablePath: string,
): Promise<CreateContainer> {
  await copySparse({ source: on.machine.scratchTemplatePath, target: writablePath, mode: 0o600 });
  return {
    spec: buildSpec({
      id,
      config,
      hostConfig: {},
      command,
      hostname: 'warm-up',
      resources: planResources({}, on.host, on.machineDefaults),
      availableCapabilities: availableCapabilities('vm', on.hostCapabilities),
      hasCgroupNamespace: true,
      cgroupPath: `/bulkhead/${id}`,
    }),
    rootfs: { layers, writablePath, readOnly: false },
    stdin: false,
    stdinOnce: false,
    files: { '/etc/hosts': '127.0.0.1\tlocalhost\n', '/etc/hostname': 'warm-up\n', '/etc/resolv.conf': '\n' },
    log: { driver: 'none', path: '', maxSizeBytes: 0, maxFiles: 1 },
    user: config.User ?? '',
    additionalGroups: [],
    ephemeral: true,
  };
}
