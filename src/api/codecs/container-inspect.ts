import type { ContainerSizes } from '../../engine/container-usage.ts';
import type { ContainerView } from '../../engine/engine.ts';
import type { ContainerConfig } from '../../wire/docker/container-config.ts';
import type { ApiVersion } from '../api-version.ts';
import { encodeSizes } from './container-list.ts';
import { encodeNetworkSettings } from './container-networks.ts';
import { encodeState } from './container-state.ts';
import { encodeHostConfig } from './host-config.ts';
import { encodeMountPoints } from './mount-points.ts';
import { formatTime } from './timestamp.ts';

/** `GET /containers/{id}/json`. Source: moby api/docs/v1.51.yaml, definition ContainerInspectResponse; `Bulkhead` is ours. */
export function encodeContainerInspect(
  view: ContainerView,
  version: ApiVersion,
  sizes?: ContainerSizes,
): Record<string, unknown> {
  return {
    Id: view.id,
    Created: formatTime(view.createdAtMs),
    Path: view.command[0] ?? '',
    Args: view.command.slice(1),
    State: encodeState(view.state, view.health),
    Image: view.imageId,
    ResolvConfPath: view.resolvConfPath,
    HostnamePath: view.hostnamePath,
    HostsPath: view.hostsPath,
    LogPath: view.logPath,
    Name: `/${view.name}`,
    RestartCount: view.restartCount,
    Driver: 'overlay2',
    Platform: 'linux',
    MountLabel: '',
    ProcessLabel: '',
    AppArmorProfile: '',
    ExecIDs: null,
    HostConfig: encodeHostConfig(view.hostConfig, view.facts.wall),
    ...encodeSizes(sizes),
    GraphDriver: { Data: null, Name: 'overlay2' },
    Mounts: encodeMountPoints(view.hostConfig),
    Config: encodeConfig(view),
    NetworkSettings: encodeNetworkSettings(view, version),
    Bulkhead: {
      wall: view.facts.wall,
      accelerator: view.facts.accelerator,
      driver: view.facts.driver,
      vcpus: view.facts.vcpus,
      memoryBytes: view.facts.memoryBytes,
      ...(view.beginning ? { machineStart: view.beginning } : {}),
      phases: view.phases,
    },
  };
}

/** Nulls in the user's configuration become Docker's zero values; fields that Docker leaves out when unset stay out. */
function encodeConfig(view: ContainerView): Record<string, unknown> {
  const { config } = view;
  const isHostNetwork = view.hostConfig.NetworkMode === 'host';
  return {
    Hostname: config.Hostname || (isHostNetwork ? '' : view.id.slice(0, 12)),
    Domainname: config.Domainname ?? '',
    User: config.User ?? '',
    AttachStdin: config.AttachStdin ?? false,
    AttachStdout: config.AttachStdout ?? false,
    AttachStderr: config.AttachStderr ?? false,
    Tty: config.Tty ?? false,
    OpenStdin: config.OpenStdin ?? false,
    StdinOnce: config.StdinOnce ?? false,
    Env: config.Env ?? [],
    Cmd: config.Cmd ?? null,
    Image: view.imageReference,
    Volumes: config.Volumes ?? null,
    WorkingDir: config.WorkingDir ?? '',
    Entrypoint: config.Entrypoint ?? null,
    OnBuild: config['OnBuild'] ?? null,
    Labels: config.Labels ?? {},
    ...pickSet(config, [
      'ExposedPorts',
      'Healthcheck',
      'ArgsEscaped',
      'NetworkDisabled',
      'MacAddress',
      'StopSignal',
      'StopTimeout',
      'Shell',
    ]),
  };
}

function pickSet(config: ContainerConfig, names: readonly string[]): Record<string, unknown> {
  const entries = names.map((name) => [name, config[name]] as const);
  return Object.fromEntries(entries.filter(([, value]) => value !== undefined && value !== null && value !== ''));
}
