import { homedir } from 'node:os';
import type { ContainerCreateRequest } from '../../wire/docker/container-config.ts';
import type { FlagValues } from '../flags/flag-table.ts';
import { UsageError } from '../flags/parse-flags.ts';
import { parseBytes, parseBytesOrUnlimited, parseDurationNs, parseNanoCpus } from '../flags/quantities.ts';
import type { CONTAINER_FLAGS } from './container-flags.ts';
import { collectEnvironment, collectLabels, parseKeyValues } from './environment.ts';
import { parseMount, planVolumes } from './mount-specs.ts';
import { planNetworks } from './network-specs.ts';
import { parseDevice, parseRestartPolicy, parseUlimit, planSecurity } from './policy-specs.ts';
import { planPorts } from './port-specs.ts';

export type ContainerFlags = FlagValues<typeof CONTAINER_FLAGS>;

export interface CreateSurroundings {
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Nobody will look at the container's streams. */
  readonly detached: boolean;
  /** Height and width of the caller's terminal, character cells. */
  readonly consoleSize: readonly [number, number] | undefined;
}

/** Body of `POST /containers/create` for a command line, as Docker's CLI makes it; what was not asked for is left to the daemon. */
export function buildCreateRequest(
  flags: ContainerFlags,
  image: string,
  command: readonly string[],
  surroundings: CreateSurroundings,
): ContainerCreateRequest {
  const ports = planPorts(flags.publish, flags.expose);
  const volumes = planVolumes(flags.volume, homedir());
  const networks = planNetworks({
    networks: [...flags.network, ...flags.net],
    aliases: [...flags['network-alias'], ...flags['net-alias']],
    ipv4Address: flags.ip,
    ipv6Address: flags.ip6,
    macAddress: flags['mac-address'],
    links: flags.link,
  });
  const attached = planAttachment(flags, surroundings.detached);
  const healthcheck = planHealthcheck(flags);
  return {
    Image: image,
    ...attached,
    Tty: flags.tty ?? false,
    OpenStdin: flags.interactive ?? false,
    StdinOnce: (flags.interactive ?? false) && attached.AttachStdin,
    Env: collectEnvironment(flags['env-file'], flags.env, surroundings.environment),
    Labels: collectLabels(flags['label-file'], flags.label),
    ExposedPorts: ports.exposed,
    Volumes: volumes.volumes,
    ...(command.length === 0 ? {} : { Cmd: [...command] }),
    ...(flags.entrypoint === undefined ? {} : { Entrypoint: [flags.entrypoint] }),
    ...given('Hostname', flags.hostname),
    ...given('Domainname', flags.domainname),
    ...given('User', flags.user),
    ...given('WorkingDir', flags.workdir),
    ...given('StopSignal', flags['stop-signal']),
    ...given('StopTimeout', flags['stop-timeout']),
    ...given('MacAddress', flags['mac-address']),
    ...given('Healthcheck', healthcheck),
    HostConfig: {
      ...planHost(flags),
      Binds: volumes.binds,
      PortBindings: ports.bindings,
      NetworkMode: networks.mode,
      ...given(
        'ConsoleSize',
        surroundings.consoleSize === undefined ? undefined : ([...surroundings.consoleSize] as [number, number]),
      ),
    },
    NetworkingConfig: { EndpointsConfig: networks.endpoints },
  };
}

function planAttachment(flags: ContainerFlags, detached: boolean) {
  const chosen = flags.attach.map((name) => name.toLowerCase());
  if (detached) {
    if (chosen.length > 0) throw new UsageError('conflicting options: cannot specify both --attach and --detach');
    return { AttachStdin: false, AttachStdout: false, AttachStderr: false };
  }
  if (chosen.length === 0) return { AttachStdin: flags.interactive ?? false, AttachStdout: true, AttachStderr: true };
  return {
    AttachStdin: chosen.includes('stdin'),
    AttachStdout: chosen.includes('stdout'),
    AttachStderr: chosen.includes('stderr'),
  };
}

function planHost(flags: ContainerFlags) {
  if (flags.vcpus !== undefined && flags.cpus !== undefined)
    throw new UsageError('conflicting options: --vcpus and --cpus set the same limit');
  if (flags.vcpus !== undefined && flags.vcpus < 1)
    throw new UsageError(`--vcpus must be at least 1, not ${flags.vcpus}`);
  const security = planSecurity(flags['security-opt']);
  return {
    AutoRemove: flags.rm ?? false,
    PublishAllPorts: flags['publish-all'] ?? false,
    Privileged: flags.privileged ?? false,
    ReadonlyRootfs: flags['read-only'] ?? false,
    RestartPolicy: parseRestartPolicy(flags.restart ?? 'no'),
    LogConfig: { Type: flags['log-driver'] ?? '', Config: parseKeyValues(flags['log-opt']) },
    ...listed('CapAdd', flags['cap-add']),
    ...listed('CapDrop', flags['cap-drop']),
    ...listed('Dns', flags.dns),
    ...listed('DnsOptions', [...flags['dns-option'], ...flags['dns-opt']]),
    ...listed('DnsSearch', flags['dns-search']),
    ...listed('ExtraHosts', flags['add-host'].map(normalizeExtraHost)),
    ...listed('GroupAdd', flags['group-add']),
    ...listed('Links', flags.link),
    ...listed('VolumesFrom', flags['volumes-from']),
    ...listed('SecurityOpt', security.options),
    ...(security.showsSystemPaths ? { MaskedPaths: [], ReadonlyPaths: [] } : {}),
    ...listed('Mounts', flags.mount.map(parseMount)),
    ...listed('Devices', flags.device.map(parseDevice)),
    ...listed('Ulimits', flags.ulimit.map(parseUlimit)),
    ...mapped('Tmpfs', planTmpfs(flags.tmpfs)),
    ...mapped('Sysctls', parseKeyValues(flags.sysctl)),
    ...mapped('Annotations', parseKeyValues(flags.annotation)),
    ...mapped('StorageOpt', parseKeyValues(flags['storage-opt'])),
    ...given('ContainerIDFile', flags.cidfile),
    ...given('VolumeDriver', flags['volume-driver']),
    ...given('ShmSize', flags['shm-size'] === undefined ? undefined : parseBytes(flags['shm-size'])),
    ...given('Isolation', flags.isolation),
    ...given('Runtime', flags.runtime),
    ...given('IpcMode', flags.ipc),
    ...given('PidMode', flags.pid),
    ...given('UTSMode', flags.uts),
    ...given('UsernsMode', flags.userns),
    ...given('CgroupnsMode', flags.cgroupns),
    ...given('CgroupParent', flags['cgroup-parent']),
    ...given('Init', flags.init),
    ...given(
      'NanoCpus',
      flags.vcpus === undefined
        ? flags.cpus === undefined
          ? undefined
          : parseNanoCpus(flags.cpus)
        : flags.vcpus * 1e9,
    ),
    ...given('CpuShares', flags['cpu-shares']),
    ...given('CpuPeriod', flags['cpu-period']),
    ...given('CpuQuota', flags['cpu-quota']),
    ...given('CpusetCpus', flags['cpuset-cpus']),
    ...given('CpusetMems', flags['cpuset-mems']),
    ...given('BlkioWeight', flags['blkio-weight']),
    ...given('Memory', flags.memory === undefined ? undefined : parseBytes(flags.memory)),
    ...given(
      'MemoryReservation',
      flags['memory-reservation'] === undefined ? undefined : parseBytes(flags['memory-reservation']),
    ),
    ...given(
      'MemorySwap',
      flags['memory-swap'] === undefined ? undefined : parseBytesOrUnlimited(flags['memory-swap']),
    ),
    ...given('MemorySwappiness', flags['memory-swappiness']),
    ...given('OomKillDisable', flags['oom-kill-disable']),
    ...given('OomScoreAdj', flags['oom-score-adj']),
    ...given('PidsLimit', flags['pids-limit']),
  };
}

function planHealthcheck(flags: ContainerFlags) {
  const durations = {
    ...given('Interval', nanoseconds(flags['health-interval'])),
    ...given('Timeout', nanoseconds(flags['health-timeout'])),
    ...given('StartPeriod', nanoseconds(flags['health-start-period'])),
    ...given('StartInterval', nanoseconds(flags['health-start-interval'])),
    ...given('Retries', flags['health-retries']),
  };
  const probe = flags['health-cmd'];
  if (flags['no-healthcheck'] === true) {
    if (probe !== undefined || Object.keys(durations).length > 0)
      throw new UsageError('--no-healthcheck conflicts with --health-* options');
    return { Test: ['NONE'] };
  }
  if (probe === undefined && Object.keys(durations).length === 0) return undefined;
  return { ...(probe === undefined ? {} : { Test: ['CMD-SHELL', probe] }), ...durations };
}

function nanoseconds(text: string | undefined): number | undefined {
  return text === undefined ? undefined : parseDurationNs(text);
}

function planTmpfs(specs: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    specs.map((spec) => {
      const colon = spec.indexOf(':');
      return colon === -1 ? [spec, ''] : [spec.slice(0, colon), spec.slice(colon + 1)];
    }),
  );
}

/** `host=ip` is the newer notation of `host:ip`; an IPv6 address may stand in brackets. */
function normalizeExtraHost(spec: string): string {
  const match = /^([^=:]+)[=:](.+)$/.exec(spec);
  if (match === null) throw new UsageError(`bad format for add-host: ${JSON.stringify(spec)}`);
  const address = (match[2] ?? '').replace(/^\[(.*)\]$/, '$1');
  if (address !== 'host-gateway' && !process.getBuiltinModule('node:net').isIP(address))
    throw new UsageError(`invalid IP address in add-host: ${JSON.stringify(address)}`);
  return `${match[1]}:${address}`;
}

function given<Name extends string, Value>(name: Name, value: Value | undefined): { [Key in Name]?: Value } {
  return (value === undefined ? {} : { [name]: value }) as { [Key in Name]?: Value };
}

function listed<Name extends string, Item>(name: Name, items: readonly Item[]): { [Key in Name]?: Item[] } {
  return given(name, items.length === 0 ? undefined : [...items]);
}

function mapped<Name extends string>(
  name: Name,
  map: Record<string, string>,
): { [Key in Name]?: Record<string, string> } {
  return given(name, Object.keys(map).length === 0 ? undefined : map);
}
