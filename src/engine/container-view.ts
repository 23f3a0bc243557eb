import { join } from 'node:path';
import { hasProcesses } from '../core/container-state.ts';
import type { ContainerRecord, SandboxRecord } from './container-record.ts';
import type { ContainerView, PublishedPort } from './engine.ts';

/** Where a container's files are; the layout of `DATA_ROOT/containers/<id>`. */
export interface ContainerPaths {
  /** Files that outlive the sandbox. */
  readonly stateDir: string;
  readonly logPath: string;
  /** vm wall: the scratch disk; os wall: the directory with `upper` and `work`. */
  writablePath(isolation: 'vm' | 'os'): string;
}

export function containerPaths(dataRoot: string, id: string): ContainerPaths {
  const stateDir = join(dataRoot, 'containers', id);
  return {
    stateDir,
    logPath: join(stateDir, `${id}-json.log`),
    writablePath: (isolation) => join(stateDir, isolation === 'vm' ? 'scratch.img' : 'writable'),
  };
}

export function toView(record: ContainerRecord, dataRoot: string): ContainerView {
  const paths = containerPaths(dataRoot, record.id);
  // What an ended run still has on the host is being given back: it is nobody's address any more.
  const sandbox = hasProcesses(record.state) ? record.sandbox : undefined;
  const ports: Record<string, readonly PublishedPort[] | null> = {};
  if (sandbox?.network) {
    for (const port of Object.keys(record.config.ExposedPorts ?? {})) ports[port] = null;
    Object.assign(ports, sandbox.ports);
  }
  return {
    id: record.id,
    name: record.name,
    createdAtMs: record.createdAtMs,
    imageId: record.imageId,
    imageReference: record.imageReference,
    config: { ...record.config, Hostname: record.hostname },
    hostConfig: record.hostConfig,
    command: record.command,
    state: record.state,
    restartCount: record.restartCount,
    logPath: record.hostConfig.LogConfig?.Type === 'none' ? '' : paths.logPath,
    hostnamePath: '',
    hostsPath: '',
    resolvConfPath: '',
    facts: record.facts,
    networks: networksOf(record, sandbox),
    ports,
    phases: record.sandbox?.phases ?? record.lastPhases ?? [],
    ...beginningOf(record),
  };
}

function beginningOf({ sandbox, lastBeginning }: ContainerRecord): Pick<ContainerView, 'beginning'> {
  const beginning = sandbox?.beginning ?? lastBeginning;
  return beginning ? { beginning } : {};
}

function networksOf(record: ContainerRecord, sandbox: SandboxRecord | undefined): ContainerView['networks'] {
  const endpoint = sandbox?.network;
  if (endpoint) {
    const { networkName, networkId, endpointId, macAddress, ipv4Address, ipv4PrefixLength, ipv4Gateway } = endpoint;
    return { [networkName]: { networkId, endpointId, macAddress, ipv4Address, ipv4PrefixLength, ipv4Gateway } };
  }
  const name = record.hostConfig.NetworkMode ?? 'bridge';
  return {
    [name]: { networkId: '', endpointId: '', macAddress: '', ipv4Address: '', ipv4PrefixLength: 0, ipv4Gateway: '' },
  };
}
