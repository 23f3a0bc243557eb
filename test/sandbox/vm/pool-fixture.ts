import { mkdir } from 'node:fs/promises';
import type { SandboxConfig } from '../../../src/wire/shim.ts';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { MachinePool, type MachinePoolOptions, type WarmUpPlan } from '../../../src/sandbox/vm/machine-pool.ts';
import { makeMachineFixture, MIB, sizeOf, until, type MachineFixture } from '../../machine/machine-fixture.ts';
import { FakeLauncher } from './fake-launcher.ts';

export const DEFAULT = sizeOf(256);

/** A warm-up that tells the fake launcher whose it is. */
export const planOf =
  (name: string): WarmUpPlan =>
  (id, writablePath) =>
    Promise.resolve({
      spec: { id },
      rootfs: { layers: [], writablePath, readOnly: false },
      stdin: false,
      stdinOnce: false,
      files: {},
      log: { driver: 'none', path: '', maxSizeBytes: 0, maxFiles: 1 },
      user: name,
      additionalGroups: [],
      ephemeral: true,
    });

export interface PoolFixture extends MachineFixture {
  readonly launcher: FakeLauncher;
  readonly poolDirectory: string;
  /** Also what the next daemon does: its launcher finds what the one before has left. */
  openPool(options?: Partial<MachinePoolOptions>): MachinePool;
}

export async function makePoolFixture(t: ExecutionContext): Promise<PoolFixture> {
  const machines = await makeMachineFixture(t);
  const launcher = new FakeLauncher();
  const poolDirectory = join(machines.directory, 'machines');
  await mkdir(poolDirectory);
  return {
    ...machines,
    launcher,
    poolDirectory,
    openPool: (options = {}) =>
      new MachinePool({
        size: 1,
        defaultClass: DEFAULT,
        directory: poolDirectory,
        places: { sandboxesDirectory: join(machines.directory, 's'), interfacePrefix: 'qt' },
        hostMemoryBytes: 64 * 1024 * MIB,
        machine: machines.machine,
        templates: machines.openTemplates(),
        launcher,
        logger: machines.logger,
        planWarmUp: planOf('any'),
        preparesImages: true,
        ...options,
      }),
  };
}

export async function filled(pool: MachinePool, count: number): Promise<MachinePool> {
  pool.refill();
  await until(`${count} machines wait`, () => pool.waiting === count);
  return pool;
}

/** A launch of which those that are meant do not come to their end. */
export const failing =
  (isMeant: (config: SandboxConfig) => boolean = () => true) =>
  (config: SandboxConfig): Promise<void> =>
    isMeant(config) ? Promise.reject(new Error('it hangs')) : Promise.resolve();
