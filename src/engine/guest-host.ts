import { copyFile, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { formatAddress, macAddressFor } from '../core/address-allocation.ts';
import { interfaceName, shortId } from '../core/ids.ts';
import { buildSeed } from '../machine/cloud-init/seed.ts';
import { qemuImgCreate } from '../machine/disks/qemu-img.ts';
import type { GuestMachineSpec } from '../machine/guest/qemu-arguments.ts';
import { findUefiFirmware } from '../machine/guest/qemu-host.ts';
import { runProgram } from '../platform/exec.ts';
import { deleteLink } from '../platform/ffi/links.ts';
import type { EngineContext } from './engine-context.ts';
import type { GuestNetworkRecord, GuestRecord } from './guest-record.ts';

export type GuestHostContext = Pick<
  EngineContext,
  'network' | 'machine' | 'clock' | 'dataRoot' | 'execRoot' | 'interfacePrefix'
>;

/** Where a guest's files are. */
export interface GuestPaths {
  readonly directory: string;
  readonly disk: string;
  readonly seed: string;
  readonly uefiVariables: string;
  readonly consoleLog: string;
  readonly machineLog: string;
  /** Sockets, only while it runs. */
  readonly runtimeDir: string;
}

/** What a guest takes of the host: names made from its id, files, a tap; made and given back. */
export class GuestHost {
  readonly #context: GuestHostContext;

  constructor(context: GuestHostContext) {
    this.#context = context;
  }

  paths(id: string): GuestPaths {
    const directory = join(this.#context.dataRoot, 'guests', id);
    const file = (name: string): string => join(directory, name);
    return {
      directory,
      disk: file('disk.qcow2'),
      seed: file('seed.iso'),
      uefiVariables: file('uefi-variables.fd'),
      consoleLog: file('console.log'),
      machineLog: file('machine.log'),
      runtimeDir: join(this.#context.execRoot, 'g', shortId(id)),
    };
  }

  /** An address for life, and the names that follow from it. Nothing is made yet. */
  reserveNetwork(id: string): GuestNetworkRecord {
    const { network, interfacePrefix } = this.#context;
    const address = network.allocate();
    return {
      name: network.name,
      tap: interfaceName(interfacePrefix, 'g', id),
      macAddress: macAddressFor(address),
      ipv4Address: formatAddress(address),
    };
  }

  /** Disk, seed and firmware variables of a new guest. */
  async makeFiles(record: GuestRecord, userData: string | undefined, signal: AbortSignal): Promise<void> {
    const paths = this.paths(record.id);
    await mkdir(paths.directory, { recursive: true, mode: 0o711 });
    await qemuImgCreate(
      paths.disk,
      { format: 'qcow2', virtualBytes: record.diskBytes, base: { path: record.imagePath, format: 'qcow2' } },
      { signal },
    );
    const seed = buildSeed({
      instanceId: record.id,
      hostname: record.name,
      userData,
      network: record.network && (await this.#seedNetwork(record.network)),
      createdAt: new Date(record.createdAtMs),
    });
    await writeFile(paths.seed, seed, { mode: 0o600 });
    await writeFile(paths.consoleLog, '', { mode: 0o600 });
    if (record.firmware === 'uefi') {
      const { variablesTemplate } = await findUefiFirmware();
      await copyFile(variablesTemplate, paths.uefiVariables);
    }
  }

  async removeFiles(record: GuestRecord): Promise<void> {
    const { directory, runtimeDir } = this.paths(record.id);
    await rm(runtimeDir, { recursive: true, force: true });
    await rm(directory, { recursive: true, force: true });
  }

  /** The bridge and the guest's tap on it. QEMU opens the tap by its name, so it belongs to the user that QEMU runs as. */
  async makeNetwork(record: GuestRecord, uid: number): Promise<void> {
    if (!record.network) return;
    const { network } = this.#context;
    await network.ensure();
    const { tap } = record.network;
    await deleteLink(tap);
    const ip = (...args: string[]): Promise<string> =>
      runProgram('ip', args, { purpose: `make the network interface ${tap} of guest ${record.name}` });
    await ip('tuntap', 'add', 'dev', tap, 'mode', 'tap', 'user', String(uid));
    try {
      await ip('link', 'set', 'dev', tap, 'mtu', String(network.mtu), 'master', network.bridgeName, 'up');
    } catch (error) {
      await deleteLink(tap);
      throw error;
    }
  }

  /** Gives back what only a running guest has. */
  async release(record: GuestRecord): Promise<void> {
    if (record.network) await deleteLink(record.network.tap);
    await rm(this.paths(record.id).runtimeDir, { recursive: true, force: true });
    if (record.uid !== undefined) this.#context.machine.releaseUid(record.uid);
  }

  async machineSpec(record: GuestRecord, uid: number): Promise<GuestMachineSpec> {
    const paths = this.paths(record.id);
    const { accelerator } = this.#context.machine;
    const hex = record.id.slice(0, 32);
    const firmware =
      record.firmware === 'bios'
        ? ({ kind: 'bios' } as const)
        : { kind: 'uefi' as const, code: (await findUefiFirmware()).code, variables: paths.uefiVariables };
    return {
      name: record.name,
      uuid: [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-'),
      machineType: record.machineType,
      accelerator,
      // In emulation none can be plugged later (see setVcpus): the machine has all, and the guest is told how many to use.
      vcpus: accelerator === 'tcg' ? Math.max(record.vcpus, record.maxVcpus) : record.vcpus,
      memoryBytes: record.memoryBytes,
      maxVcpus: Math.max(record.vcpus, record.maxVcpus),
      maxMemoryBytes: Math.max(record.memoryBytes, record.maxMemoryBytes),
      firmware,
      disk: [
        { path: paths.disk, format: 'qcow2' },
        { path: record.imagePath, format: 'qcow2' },
      ],
      seed: paths.seed,
      network: record.network,
      uid,
      runtimeDir: paths.runtimeDir,
      emptyRoot: join(this.#context.execRoot, 'g', 'empty'),
      consoleLog: paths.consoleLog,
    };
  }

  async #seedNetwork(endpoint: GuestNetworkRecord) {
    const { network } = this.#context;
    const nameservers = [...(await network.resolvConf()).matchAll(/^nameserver\s+(\S+)/gm)].map(([, one = '']) => one);
    return {
      macAddress: endpoint.macAddress,
      ipv4Address: endpoint.ipv4Address,
      ipv4PrefixLength: network.subnet.prefixLength,
      ipv4Gateway: formatAddress(network.gateway),
      nameservers,
      mtuBytes: network.mtu,
    };
  }
}
