import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { parseDigest } from '../core/digest.ts';
import { EngineError } from '../core/errors.ts';
import { interfaceName, newId, shortId } from '../core/ids.ts';
import type { PortRequest } from '../core/ports.ts';
import { removeRemains, reserveMachine } from '../machine/machine-place.ts';
import { copySparse } from '../platform/ffi/files.ts';
import type { PooledMachine, WarmUpPlan } from '../sandbox/vm/machine-pool.ts';
import type { ContainerConfig } from '../wire/docker/container-config.ts';
import type { CreateContainer, MachineTemplate } from '../wire/shim.ts';
import type { ContainerRecord, SandboxRecord } from './container-record.ts';
import { containerPaths } from './container-view.ts';
import type { EngineContext } from './engine-context.ts';
import { imageDefaults } from './image-defaults.ts';
import { availableCapabilities } from './process-plan.ts';
import { machineClassOf, planEndpoint, type SandboxPlanInput } from './sandbox-plan.ts';
import { planImageWarmUp } from './warm-up.ts';

/** What a sandbox takes of the host: reserved before it is made, made for it, taken up again after the daemon's death, and given back. */
export class SandboxHost {
  readonly #context: EngineContext;

  constructor(context: EngineContext) {
    this.#context = context;
  }

  /**
   * Reserves an address, and a user id or a machine that waits. Nothing is made yet: this is the intent that goes to disk first. With `fresh`
   * no waiting machine is taken.
   */
  reserve(record: ContainerRecord, options: { fresh: boolean }): { sandbox: SandboxRecord; pooled?: PooledMachine } {
    const { execRoot, interfacePrefix, machine, pool } = this.#context;
    const address = this.#allocateAddress(record);
    if (record.isolation === 'os') {
      return { sandbox: this.#planRecord(record, {}, address, interfaceName(interfacePrefix, 'v', record.id)) };
    }
    const pooled = options.fresh ? undefined : pool?.take(machineClassOf(record, this.#context), record.imageId);
    if (pooled) {
      const { runtimeDir, cgroupPath, uid, tapName } = pooled;
      const own = { runtimeDir, cgroupPath, uid, tapName };
      return { sandbox: this.#planRecord(record, own, address, tapName), pooled };
    }
    const own = reserveMachine(machine, record.id, { sandboxesDirectory: join(execRoot, 's'), interfacePrefix });
    return { sandbox: this.#planRecord(record, own, address, own.tapName) };
  }

  /** A sandbox that an earlier daemon made keeps what it has. */
  reserveAgain(record: ContainerRecord, sandbox: SandboxRecord): void {
    if (sandbox.network) this.#context.network.reserve(sandbox.network.ipv4Address);
    if (sandbox.uid !== undefined) this.#context.machine.reserveUid(sandbox.uid, record.id);
  }

  /** Makes what the sandbox stands on (network, layers, writable part), and gathers all that its plan needs. */
  async prepare(
    record: ContainerRecord,
    sandbox: SandboxRecord,
    ports: readonly PortRequest[],
    template: MachineTemplate | undefined,
  ): Promise<SandboxPlanInput> {
    const { images, machine, network, dataRoot } = this.#context;
    const paths = containerPaths(dataRoot, record.id);
    const writablePath = paths.writablePath(record.isolation);
    const image = images.get(parseDigest(record.imageId));
    if (!image) {
      const { imageId, name } = record;
      throw new EngineError('not-found', `image ${imageId} of container ${name} is gone; create the container anew`);
    }
    const { layers: unpacked } = await images.rootfs(image);
    const layers = await this.#prepareRoot(record, unpacked, writablePath);
    if (record.isolation === 'vm') this.#noteStart(record, imageDefaults(image), layers);
    if (sandbox.network) await network.ensure();
    return {
      record,
      sandbox,
      stateDir: paths.stateDir,
      logPath: paths.logPath,
      writablePath,
      layers,
      host: this.#context.host,
      machineDefaults: this.#context.machineDefaults,
      machine: record.isolation === 'vm' ? machine.config() : undefined,
      template,
      runcPath: this.#context.runcPath,
      initPath: this.#context.initPath,
      bridge: sandbox.network ? { name: network.bridgeName, mtu: network.mtu } : undefined,
      resolvConf: await network.resolvConf(),
      availableCapabilities: availableCapabilities(record.isolation, this.#context.hostCapabilities),
      ports,
      hostCgroupVersion: this.#context.hostCgroupVersion,
    };
  }

  /** Gives back what the sandbox had, and removes what outlives a shim that was killed. The reservations go last: until then they are in use. */
  async giveBack(sandbox: SandboxRecord): Promise<void> {
    const { network, machine } = this.#context;
    await this.clear(sandbox);
    if (sandbox.network) network.release(sandbox.network.ipv4Address);
    if (sandbox.uid !== undefined) machine.releaseUid(sandbox.uid);
  }

  /** Removes what a sandbox has left, and keeps its reservations. */
  async clear(sandbox: SandboxRecord): Promise<void> {
    await removeRemains(sandbox);
  }

  #allocateAddress(record: ContainerRecord): number | undefined {
    const { network } = this.#context;
    const mode = record.hostConfig.NetworkMode ?? network.name;
    if (mode === 'none') return undefined;
    if (mode !== network.name && mode !== network.id) {
      throw new EngineError('not-found', `network ${mode} not found`);
    }
    return network.allocate();
  }

  #planRecord(
    record: ContainerRecord,
    own: Partial<SandboxRecord>,
    address: number | undefined,
    hostInterface: string,
  ): SandboxRecord {
    const { network, execRoot } = this.#context;
    return {
      runtimeDir: join(execRoot, 's', shortId(record.id)),
      cgroupPath: `bulkhead/${record.id}`,
      ports: {},
      phases: [],
      ...own,
      ...(address === undefined
        ? {}
        : {
            network: planEndpoint({
              networkId: network.id,
              networkName: network.name,
              endpointId: newId(),
              address,
              gateway: network.gateway,
              subnet: network.subnet,
              hostInterface,
              macAddress: record.config.MacAddress ?? undefined,
            }),
          }),
    };
  }

  /** Who starts an image twice may start it a third time. */
  #noteStart(record: ContainerRecord, config: ContainerConfig, layers: CreateContainer['rootfs']['layers']): void {
    const { command, imageId } = record;
    const plan: WarmUpPlan = (id, path) => planImageWarmUp(this.#context, { config, command, layers }, id, path);
    this.#context.pool?.noteStart(machineClassOf(record, this.#context), imageId, plan);
  }

  async #prepareRoot(
    record: ContainerRecord,
    unpacked: readonly { imagePath: string; sizeBytes: number; diffId: string }[],
    writablePath: string,
  ): Promise<CreateContainer['rootfs']['layers']> {
    if (record.isolation === 'vm') {
      await this.#ensureScratch(writablePath);
      return unpacked.map(({ imagePath, sizeBytes }) => ({ imagePath, sizeBytes, mountPath: '' }));
    }
    await mkdir(join(writablePath, 'upper'), { recursive: true, mode: 0o755 });
    await mkdir(join(writablePath, 'work'), { recursive: true, mode: 0o700 });
    return await this.#context.layerMounts.mount(unpacked);
  }

  async #ensureScratch(path: string): Promise<void> {
    try {
      await copySparse({ source: this.#context.machine.scratchTemplatePath, target: path, mode: 0o600 });
    } catch (error) {
      // Started before: its disk is there, with what the container wrote.
      if (!(error instanceof EngineError && error.code === 'conflict')) throw error;
    }
  }
}
