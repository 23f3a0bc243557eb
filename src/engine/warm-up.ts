import { stat } from 'node:fs/promises';
import { planResources, type HostResources, type MachineDefaults } from '../core/resources.ts';
import { copySparse } from '../platform/ffi/files.ts';
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

/** The container that a machine runs before it waits: like any other, so that what the others need is ready. Makes its scratch disk. */
export async function planWarmUp(on: WarmUpHost, id: string, writablePath: string): Promise<CreateContainer> {
  const { warmUpPath, scratchTemplatePath } = on.machine;
  const [{ size: sizeBytes }] = await Promise.all([
    stat(warmUpPath),
    copySparse({ source: scratchTemplatePath, target: writablePath, mode: 0o600 }),
  ]);
  return {
    spec: buildSpec({
      id,
      config: {},
      hostConfig: {},
      command: [PROGRAM],
      hostname: 'warm-up',
      resources: planResources({}, on.host, on.machineDefaults),
      availableCapabilities: availableCapabilities('vm', on.hostCapabilities),
      hasCgroupNamespace: true,
      cgroupPath: `/bulkhead/${id}`,
    }),
    rootfs: { layers: [{ imagePath: warmUpPath, sizeBytes, mountPath: '' }], writablePath, readOnly: false },
    stdin: false,
    stdinOnce: false,
    files: { '/etc/hosts': '127.0.0.1\tlocalhost\n', '/etc/hostname': 'warm-up\n', '/etc/resolv.conf': '\n' },
    log: { driver: 'none', path: '', maxSizeBytes: 0, maxFiles: 1 },
    user: '',
    additionalGroups: [],
    ephemeral: true,
  };
}
