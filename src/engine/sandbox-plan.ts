import { formatAddress, macAddressFor, type Subnet } from '../core/address-allocation.ts';
import { EngineError } from '../core/errors.ts';
import { shortId } from '../core/ids.ts';
import {
  planResources,
  type HostResources,
  type MachineClass,
  type MachineDefaults,
  type ResourceRequest,
} from '../core/resources.ts';
import {
  PROTOCOL_GENERATION,
  type Assignment,
  type CreateContainer,
  type MachineTemplate,
  type SandboxConfig,
  type SandboxPort,
} from '../wire/shim.ts';
import type { MachineBase } from '../machine/machine-host.ts';
import { planMachine } from '../machine/machine-place.ts';
import type { ContainerRecord, SandboxRecord } from './container-record.ts';
import { planLogOptions } from './log-options.ts';
import { buildSpec } from './oci-spec.ts';

/** In a guest, the agent is its `/init`, and a container's too. */
const GUEST_INIT_PATH = '/init';

/** Everything of the host that a container's sandbox is built from. Pure data: gathered before the plan is made. */
export interface SandboxPlanInput {
  readonly record: ContainerRecord;
  readonly sandbox: SandboxRecord;
  readonly stateDir: string;
  readonly logPath: string;
  readonly writablePath: string;
  readonly layers: CreateContainer['rootfs']['layers'];
  readonly host: HostResources;
  readonly machineDefaults: MachineDefaults;
  readonly machine: MachineBase | undefined;
  /** A saved machine to start from. */
  readonly template: MachineTemplate | undefined;
  readonly runcPath: string;
  /** On the host: the init of containers that want one. */
  readonly initPath: string;
  readonly bridge: { readonly name: string; readonly mtu: number } | undefined;
  readonly resolvConf: string;
  readonly availableCapabilities: ReadonlySet<string>;
  readonly ports: readonly SandboxPort[];
  readonly hostCgroupVersion: 1 | 2;
}

export function planSandbox(input: SandboxPlanInput): SandboxConfig {
  const { record, sandbox, machine, bridge } = input;
  const endpoint = sandbox.network;
  const network =
    endpoint && bridge
      ? {
          network: {
            bridge: bridge.name,
            hostInterface: endpoint.hostInterface,
            interface: 'eth0',
            macAddress: endpoint.macAddress,
            ipv4Address: endpoint.ipv4Address,
            ipv4PrefixLength: endpoint.ipv4PrefixLength,
            ipv4Gateway: endpoint.ipv4Gateway,
            mtu: bridge.mtu,
          },
        }
      : {};
  const base = {
    generation: PROTOCOL_GENERATION,
    id: record.id,
    runtimeDir: sandbox.runtimeDir,
    stateDir: input.stateDir,
    hostname: record.hostname,
    ...network,
    ports: input.ports,
  };
  if (record.isolation === 'os') return { ...base, wall: 'os', os: { runcPath: input.runcPath } };
  const { uid, cgroupPath, tapName } = sandbox;
  if (!machine || uid === undefined || tapName === undefined) {
    throw new EngineError('internal', `container ${shortId(record.id)}: no machine was planned for it`);
  }
  return {
    ...base,
    wall: 'vm',
    machine: planMachine(machine, machineClassOf(record, input), { uid, cgroupPath, tapName }, input.template),
  };
}

/** What a machine that waits is told when it becomes this container's. */
export function planAssignment(input: SandboxPlanInput): Assignment {
  const { stateDir, hostname, ports, network } = planSandbox(input);
  return { stateDir, hostname, ports, ...(network ? { network } : {}) };
}

/** The size of machine that a container wants. */
export function machineClassOf(
  { hostConfig }: ContainerRecord,
  on: { host: HostResources; machineDefaults: MachineDefaults },
): MachineClass {
  const { vcpus, machineMemoryBytes } = planResources(resourceRequest(hostConfig), on.host, on.machineDefaults);
  return { vcpus, memoryBytes: machineMemoryBytes };
}

export function planCreateContainer(input: SandboxPlanInput): CreateContainer {
  const { record } = input;
  const { config, hostConfig } = record;
  const size = hostConfig.ConsoleSize;
  const [height = 0, width = 0] = size ?? [];
  return {
    spec: buildSpec({
      id: record.id,
      config,
      hostConfig,
      command: record.command,
      initPath: hostConfig.Init ? (record.isolation === 'vm' ? GUEST_INIT_PATH : input.initPath) : undefined,
      hostname: record.hostname,
      resources: resourcesOf(input),
      availableCapabilities: input.availableCapabilities,
      hasCgroupNamespace: record.isolation === 'vm' || input.hostCgroupVersion === 2,
      cgroupPath: `/${input.sandbox.cgroupPath}`,
    }),
    rootfs: { layers: input.layers, writablePath: input.writablePath, readOnly: hostConfig.ReadonlyRootfs ?? false },
    stdin: config.OpenStdin ?? false,
    stdinOnce: (config.StdinOnce ?? false) && !config.Tty,
    ...(config.Tty && height > 0 && width > 0 ? { terminalSize: { height, width } } : {}),
    files: planFiles(input),
    log: { path: input.logPath, ...planLogOptions(hostConfig) },
    user: config.User ?? '',
    additionalGroups: hostConfig.GroupAdd ?? [],
    ephemeral: hostConfig.AutoRemove ?? false,
  };
}

function resourcesOf(input: SandboxPlanInput): ReturnType<typeof planResources> {
  return planResources(resourceRequest(input.record.hostConfig), input.host, input.machineDefaults);
}

export function resourceRequest(hostConfig: ContainerRecord['hostConfig']): ResourceRequest {
  const { NanoCpus: nanoCpus, CpuQuota: cpuQuota, CpuPeriod: cpuPeriod, Memory: memory } = hostConfig;
  return { nanoCpus, cpuQuota, cpuPeriod, memory };
}

function planFiles(input: SandboxPlanInput): Record<string, string> {
  const { record, sandbox } = input;
  const { hostConfig, config, hostname } = record;
  const names = config.Domainname ? `${hostname}.${config.Domainname} ${hostname}` : hostname;
  const gateway = sandbox.network?.ipv4Gateway;
  const extra = (hostConfig.ExtraHosts ?? []).map((entry) => {
    const at = entry.search(/[:=]/);
    const [host, address] = [entry.slice(0, at), entry.slice(at + 1)];
    if (at <= 0 || address === '')
      throw new EngineError('invalid-argument', `bad format for add-host: "${entry}"; write NAME:ADDRESS`);
    if (address !== 'host-gateway') return `${address}\t${host}`;
    if (!gateway)
      throw new EngineError('invalid-argument', `add-host ${entry}: this container has no network, and so no gateway`);
    return `${gateway}\t${host}`;
  });
  const hosts = [
    '127.0.0.1\tlocalhost',
    '::1\tlocalhost ip6-localhost ip6-loopback',
    'fe00::\tip6-localnet',
    'ff00::\tip6-mcastprefix',
    'ff02::1\tip6-allnodes',
    'ff02::2\tip6-allrouters',
    ...extra,
    ...(sandbox.network ? [`${sandbox.network.ipv4Address}\t${names}`] : []),
  ];
  return {
    '/etc/hosts': `${hosts.join('\n')}\n`,
    '/etc/hostname': `${hostname}\n`,
    '/etc/resolv.conf': planResolvConf(hostConfig, input.resolvConf),
  };
}

function planResolvConf(hostConfig: ContainerRecord['hostConfig'], inherited: string): string {
  const { Dns: servers, DnsSearch: search, DnsOptions: options } = hostConfig;
  const lines = inherited.split('\n').filter((line) => line.trim() !== '');
  const kept = lines.filter(
    (line) =>
      !(servers?.length && line.startsWith('nameserver')) &&
      !(search?.length && (line.startsWith('search') || line.startsWith('domain'))) &&
      !(options?.length && line.startsWith('options')),
  );
  const added = [
    ...(servers ?? []).map((server) => `nameserver ${server}`),
    ...(search?.length ? [`search ${search.join(' ')}`] : []),
    ...(options?.length ? [`options ${options.join(' ')}`] : []),
  ];
  return `${[...kept, ...added].join('\n')}\n`;
}

/** The endpoint of a sandbox on the default network. */
export function planEndpoint(options: {
  networkId: string;
  networkName: string;
  endpointId: string;
  address: number;
  gateway: number;
  subnet: Subnet;
  hostInterface: string;
  macAddress: string | undefined;
}): NonNullable<SandboxRecord['network']> {
  return {
    networkId: options.networkId,
    networkName: options.networkName,
    endpointId: options.endpointId,
    macAddress: options.macAddress || macAddressFor(options.address),
    ipv4Address: formatAddress(options.address),
    ipv4PrefixLength: options.subnet.prefixLength,
    ipv4Gateway: formatAddress(options.gateway),
    hostInterface: options.hostInterface,
  };
}
