import { EngineError } from '../core/errors.ts';
import { planResources, type HostResources, type MachineDefaults, type ResourcePlan } from '../core/resources.ts';
import { restartPolicy } from '../core/restart-policy.ts';
import type { HostConfig } from '../wire/docker/container-config.ts';
import type { ContainerUpdateRequest } from '../wire/docker/container-update.ts';
import { wallFacts } from './container-plan.ts';
import type { ContainerRecord } from './container-record.ts';
import { planMemory, planCpu } from './oci-spec.ts';
import { resourceRequest } from './sandbox-plan.ts';

export interface UpdatePlan {
  /** The record with the wish in it. */
  readonly record: ContainerRecord;
  /** The runtime-spec `linux.resources` for what runs; undefined if nothing of it changes. */
  readonly resources: object | undefined;
}

export interface UpdateContext {
  readonly host: HostResources;
  readonly machineDefaults: MachineDefaults;
}

const RESOURCES = [
  'CpuShares',
  'Memory',
  'NanoCpus',
  'CpuPeriod',
  'CpuQuota',
  'CpusetCpus',
  'CpusetMems',
  'MemoryReservation',
  'MemorySwap',
] as const;

/** Checks an update by Docker's rules (moby container/container_unix.go, UpdateContainer) and decides what follows from it. */
export function planUpdate(
  record: ContainerRecord,
  request: ContainerUpdateRequest,
  context: UpdateContext,
): UpdatePlan {
  const { hostConfig } = record;
  checkConflicts(hostConfig, request);
  const changed: Record<string, unknown> = Object.fromEntries(
    RESOURCES.map((field) => [field, request[field]] as const).filter(([, value]) => Boolean(value)),
  );
  // Unlike all others it has a value for "no limit" that is not negative, so null is its "as it is".
  const { PidsLimit: pidsLimit } = request;
  if (pidsLimit !== null && pidsLimit !== undefined) changed['PidsLimit'] = pidsLimit;
  const policy = planPolicy(record, request);
  const merged: HostConfig = { ...hostConfig, ...changed, ...policy };
  const plan = planResources(resourceRequest(merged), context.host, context.machineDefaults);
  return {
    record: { ...record, hostConfig: merged, facts: planFacts(record, plan, context) },
    resources: Object.keys(changed).length > 0 ? liveResources(changed, merged, plan) : undefined,
  };
}

function checkConflicts(now: HostConfig, wanted: ContainerUpdateRequest): void {
  const cannot = (what: string, because: string): EngineError =>
    new EngineError('conflict', `Conflicting options: ${what} cannot be updated as ${because} has already been set`);
  if (now.NanoCpus && wanted.CpuPeriod) throw cannot('CPU Period', 'NanoCPUs');
  if (now.NanoCpus && wanted.CpuQuota) throw cannot('CPU Quota', 'NanoCPUs');
  if (wanted.NanoCpus && now.CpuPeriod) throw cannot('Nano CPUs', 'CPU Period');
  if (wanted.NanoCpus && now.CpuQuota) throw cannot('Nano CPUs', 'CPU Quota');
  const swap = now.MemorySwap ?? 0;
  if (wanted.Memory && swap > 0 && wanted.Memory > swap && !wanted.MemorySwap) {
    throw new EngineError(
      'conflict',
      'Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time',
    );
  }
  const memory = wanted.Memory || now.Memory || 0;
  if (wanted.MemorySwap && wanted.MemorySwap > 0 && wanted.MemorySwap < memory) {
    throw new EngineError('invalid-argument', 'Minimum memoryswap limit should be larger than memory limit, see usage');
  }
}

function planPolicy(
  record: ContainerRecord,
  request: ContainerUpdateRequest,
): Pick<HostConfig, 'RestartPolicy'> | object {
  if (!request.RestartPolicy?.Name) return {};
  if (record.hostConfig.AutoRemove && restartPolicy(request.RestartPolicy).name !== 'no') {
    throw new EngineError(
      'conflict',
      'Restart policy cannot be updated because AutoRemove is enabled for the container',
    );
  }
  return { RestartPolicy: request.RestartPolicy };
}

/** A running machine keeps its CPUs; what they will be is decided anew at the next start. */
function planFacts(record: ContainerRecord, plan: ResourcePlan, context: UpdateContext): ContainerRecord['facts'] {
  const facts = wallFacts(record.isolation, plan, context.host, record.facts.accelerator);
  const isFixed = record.isolation === 'vm' && 'pid' in record.state;
  return isFixed ? { ...facts, vcpus: record.facts.vcpus } : facts;
}

/** Only what the request names; `-1` takes a limit away. */
function liveResources(changed: Readonly<Record<string, unknown>>, merged: HostConfig, plan: ResourcePlan): object {
  const has = (...fields: string[]): boolean => fields.some((field) => field in changed);
  const cpu = {
    ...(has('NanoCpus', 'CpuQuota', 'CpuPeriod') ? { quota: -1, ...planCpu(merged, plan) } : {}),
    ...(has('CpuShares') ? { shares: merged.CpuShares } : {}),
    ...(has('CpusetCpus') ? { cpus: merged.CpusetCpus } : {}),
    ...(has('CpusetMems') ? { mems: merged.CpusetMems } : {}),
  };
  return {
    ...(Object.keys(cpu).length > 0 ? { cpu } : {}),
    ...(has('Memory', 'MemorySwap', 'MemoryReservation') ? planMemory(merged, plan) : {}),
    ...(has('PidsLimit') ? { pids: { limit: (merged.PidsLimit ?? 0) > 0 ? merged.PidsLimit : -1 } } : {}),
  };
}
