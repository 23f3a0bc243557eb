import { EngineError } from './errors.ts';

const MIB = 1024 * 1024;
/** Docker's floor; below it a container's init cannot run. Source: moby daemon/daemon_unix.go. */
const MINIMUM_MEMORY_BYTES = 6 * MIB;
/** What the guest's kernel, its page tables and the agent use, beside what the container may use. Measured: 38–52 MiB. */
const GUEST_OVERHEAD_BYTES = 64 * MIB;
/** Machine sizes, so that a saved machine fits many containers. Beyond the last they go on in steps of 4 GiB. */
const MEMORY_CLASSES_MIB = [256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192] as const;
const LARGE_CLASS_STEP_BYTES = 4096 * MIB;

/** What a container asked for, in the API's units; undefined or 0 is "no limit". */
export interface ResourceRequest {
  readonly nanoCpus?: number | null | undefined;
  readonly cpuQuota?: number | null | undefined;
  readonly cpuPeriod?: number | null | undefined;
  readonly memory?: number | null | undefined;
}

export interface HostResources {
  readonly cpus: number;
  readonly memoryBytes: number;
}

/** A size of machine: saved and waiting machines come in these only. */
export interface MachineClass {
  readonly vcpus: number;
  readonly memoryBytes: number;
}

export interface ResourcePlan {
  /** CPUs' worth of time, for example 1.5; undefined is unlimited. */
  readonly cpuLimit: number | undefined;
  /** cgroup limit in bytes; undefined is unlimited. */
  readonly memoryLimitBytes: number | undefined;
  /** For a machine: its virtual CPUs and its RAM. */
  readonly vcpus: number;
  readonly machineMemoryBytes: number;
}

/** What a machine gets whose user names no limits. */
export type MachineDefaults = MachineClass;

/** Checks the request against the host and decides limits and machine size. Refusals name what was asked and what there is. */
export function planResources(request: ResourceRequest, host: HostResources, defaults: MachineDefaults): ResourcePlan {
  const cpuLimit = planCpuLimit(request, host);
  const memoryLimitBytes = planMemoryLimit(request.memory ?? 0, host);
  const vcpus = cpuLimit === undefined ? Math.min(defaults.vcpus, host.cpus) : Math.max(1, Math.ceil(cpuLimit));
  const wanted = memoryLimitBytes === undefined ? defaults.memoryBytes : memoryLimitBytes + GUEST_OVERHEAD_BYTES;
  return { cpuLimit, memoryLimitBytes, vcpus, machineMemoryBytes: memoryClass(wanted) };
}

function planCpuLimit(request: ResourceRequest, host: HostResources): number | undefined {
  const nanoCpus = request.nanoCpus ?? 0;
  const quota = request.cpuQuota ?? 0;
  const period = request.cpuPeriod || 100_000;
  if (nanoCpus !== 0 && (quota > 0 || (request.cpuPeriod ?? 0) > 0)) {
    throw new EngineError('invalid-argument', 'Conflicting options: Nano CPUs and CPU Period/Quota cannot both be set');
  }
  if (period < 1_000 || period > 1_000_000) {
    throw new EngineError(
      'invalid-argument',
      'CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)',
    );
  }
  if (quota > 0 && quota < 1_000) {
    throw new EngineError('invalid-argument', 'CPU cfs quota can not be less than 1ms (i.e. 1000)');
  }
  const asked = nanoCpus !== 0 ? nanoCpus / 1e9 : quota > 0 ? quota / period : undefined;
  if (asked === undefined) return undefined;
  if (asked < 0.01 || asked > host.cpus) {
    throw new EngineError(
      'limit-exceeded',
      `range of CPUs is from 0.01 to ${host.cpus.toFixed(2)}, as there are only ${host.cpus} CPUs available (asked: ${asked})`,
      { details: { asked, limit: host.cpus } },
    );
  }
  return asked;
}

function planMemoryLimit(memory: number, host: HostResources): number | undefined {
  if (memory === 0) return undefined;
  if (memory < MINIMUM_MEMORY_BYTES) {
    throw new EngineError('limit-exceeded', `minimum memory limit allowed is 6MB (asked: ${memory} bytes)`, {
      details: { asked: memory, minimum: MINIMUM_MEMORY_BYTES },
    });
  }
  if (memory > host.memoryBytes) {
    throw new EngineError(
      'limit-exceeded',
      `a memory limit of ${Math.ceil(memory / MIB)} MiB is more than this host's ${Math.floor(host.memoryBytes / MIB)} MiB`,
      { details: { asked: memory, limit: host.memoryBytes } },
    );
  }
  return memory;
}

function memoryClass(bytes: number): number {
  const known = MEMORY_CLASSES_MIB.find((mib) => mib * MIB >= bytes);
  return known === undefined ? Math.ceil(bytes / LARGE_CLASS_STEP_BYTES) * LARGE_CLASS_STEP_BYTES : known * MIB;
}
