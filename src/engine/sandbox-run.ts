import { EngineError } from '../core/errors.ts';
import type { Sandbox } from '../sandbox/sandbox.ts';
import type { PooledMachine } from '../sandbox/vm/machine-pool.ts';
import type { Assignment, MachineTemplate, SandboxExit, SandboxPort } from '../wire/shim.ts';
import type { ContainerRecord, SandboxRecord } from './container-record.ts';

/** What a start that failed has to clear away. */
export interface StartAttempt {
  sandbox: Sandbox | undefined;
  usedTemplate?: boolean;
}

export interface PlannedStart {
  readonly planned: SandboxRecord;
  readonly pooled: PooledMachine | undefined;
  readonly phases: { name: string; monotonicNs: number }[];
  readonly boots: boolean;
}

/** The machine ended before its agent answered, or before it was this container's: nothing of the container has run yet. */
export function isBootFailure(error: unknown): boolean {
  if (!(error instanceof EngineError)) return false;
  return error.details['shimCode'] === 'machine-failed' || error.details['isUnassigned'] === true;
}

export function beginningOf(
  { isolation, imageId }: ContainerRecord,
  pooled: PooledMachine | undefined,
  template: MachineTemplate | undefined,
): Pick<SandboxRecord, 'beginning'> {
  if (isolation === 'os') return {};
  if (pooled) return { beginning: pooled.image === imageId ? 'prepared' : 'pooled' };
  return { beginning: template ? 'restored' : 'booted' };
}

/** A machine that waited may have died meanwhile: that is no fault of the container. */
export async function assignMachine(sandbox: Sandbox, assignment: Assignment): Promise<void> {
  try {
    await sandbox.assign(assignment);
  } catch (error) {
    // A port that is taken or makes no sense would be so for every machine; anything else may be this one's end.
    if (!(error instanceof EngineError) || error.code === 'conflict' || error.code === 'invalid-argument') throw error;
    throw new EngineError(error.code, error.message, { cause: error, details: { isUnassigned: true } });
  }
}

export async function endSandbox(sandbox: Sandbox | undefined): Promise<void> {
  await sandbox?.stop(0).catch(() => undefined);
  await sandbox?.release().catch(() => undefined);
}

/** The shim is gone and left no word: it was killed, and the kernel took what it ran. */
export function lostExit(): SandboxExit {
  return { exitCode: 137, oomKilled: false, finishedAtNs: 0, error: 'the process that held the container was killed' };
}

export function groupPorts(held: readonly SandboxPort[]): SandboxRecord['ports'] {
  const grouped: Record<string, { hostIp: string; hostPort: number }[]> = {};
  for (const { containerPort, protocol, hostIp, hostPort } of held) {
    const addresses = hostIp === '' ? ['0.0.0.0', '::'] : [hostIp];
    const list = (grouped[`${containerPort}/${protocol}`] ??= []);
    list.push(...addresses.map((address) => ({ hostIp: address, hostPort })));
  }
  return grouped;
}
