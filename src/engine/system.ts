import { readFile } from 'node:fs/promises';
import { hostname, release } from 'node:os';
import { cgroupVersion } from '../platform/cgroups.ts';
import type { EngineContext } from './engine-context.ts';
import type { SystemInfo, SystemService } from './engine.ts';

export interface SystemOptions {
  /** Stable id of this daemon's data root. */
  readonly id: string;
  readonly labels: readonly string[];
  readonly registryMirrors: readonly string[];
  readonly insecureRegistries: readonly string[];
}

export class System implements SystemService {
  readonly #context: EngineContext;
  readonly #options: SystemOptions;

  constructor(context: EngineContext, options: SystemOptions) {
    this.#context = context;
    this.#options = options;
  }

  async info(): Promise<SystemInfo> {
    const { table, images, machine, pool, host, dataRoot, defaultIsolation, allowedIsolations } = this.#context;
    const statuses = table.all().map((record) => record.state.status);
    const count = (...wanted: string[]): number => statuses.filter((status) => wanted.includes(status)).length;
    return {
      ...this.#options,
      hostName: hostname(),
      kernelVersion: release(),
      operatingSystem: await operatingSystem(),
      cpus: host.cpus,
      memoryBytes: host.memoryBytes,
      dataRoot,
      containers: {
        total: statuses.length,
        running: count('running', 'restarting'),
        paused: count('paused'),
        stopped: count('created', 'exited', 'dead', 'removing'),
      },
      images: images.list().length,
      defaultIsolation,
      allowedIsolations,
      accelerator: machine.problem ? 'none' : machine.accelerator,
      machineDriver: machine.problem ? 'none' : 'qemu',
      machinePool: pool && { size: pool.size, waiting: pool.waiting, prepared: pool.images().length },
      cgroupVersion: await cgroupVersion(),
      warnings: this.#warnings(),
    };
  }

  #warnings(): string[] {
    const { machine } = this.#context;
    if (machine.problem) return [`WARNING: isolation vm is not possible on this host: ${machine.problem}`];
    if (machine.accelerator === 'tcg') {
      const reason = machine.kvm.usable ? 'chosen by --accelerator tcg' : machine.kvm.message;
      return [`WARNING: machines are emulated in software, which is slower and no hardware wall: ${reason}`];
    }
    return [];
  }
}

async function operatingSystem(): Promise<string> {
  const text = await readFile('/etc/os-release', 'utf8').catch(() => '');
  return /^PRETTY_NAME="?([^"\n]*)"?/m.exec(text)?.[1] ?? 'Linux';
}
