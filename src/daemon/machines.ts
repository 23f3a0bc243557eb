import { join } from 'node:path';
import type { Logger } from 'pino';
import { planResources } from '../core/resources.ts';
import { planWarmUp, type WarmUpHost } from '../engine/warm-up.ts';
import type { MachineHost } from '../machine/machine-host.ts';
import { MachineTemplates } from '../machine/machine-templates.ts';
import type { SandboxLauncher } from '../sandbox/sandbox.ts';
import { MachinePool } from '../sandbox/vm/machine-pool.ts';
import type { DaemonSettings } from './daemon-options.ts';

export interface MachineParts extends WarmUpHost {
  readonly machine: MachineHost;
  readonly launcher: SandboxLauncher;
  readonly shimPath: string;
  readonly logger: Logger;
}

/** Saved machines, and those that wait. Without a saved machine none can wait: booting one takes too long to be warm in time. */
export function openMachines(
  settings: DaemonSettings,
  parts: MachineParts,
): { templates: MachineTemplates | undefined; pool: MachinePool | undefined } {
  const { machine, launcher, logger } = parts;
  if (machine.problem !== undefined || !settings['saved-machines']) return { templates: undefined, pool: undefined };
  const places = {
    sandboxesDirectory: join(settings['exec-root'], 's'),
    interfacePrefix: settings['bridge-prefix'],
  };
  const templates = new MachineTemplates({
    places,
    directory: join(settings['data-root'], 'templates'),
    machine,
    shimPath: parts.shimPath,
    logger,
    make: (config, signal) => launcher.makeTemplate(config, signal),
  });
  const { vcpus, machineMemoryBytes } = planResources({}, parts.host, parts.machineDefaults);
  const pool = new MachinePool({
    places,
    size: settings.pool ?? (machine.accelerator === 'tcg' ? 1 : 0),
    defaultClass: { vcpus, memoryBytes: machineMemoryBytes },
    directory: join(settings['data-root'], 'machines'),
    hostMemoryBytes: parts.host.memoryBytes,
    machine,
    templates,
    launcher,
    logger,
    preparesImages: settings['pool-images'],
    planWarmUp: (id, writablePath) => planWarmUp(parts, id, writablePath),
  });
  return { templates, pool };
}
