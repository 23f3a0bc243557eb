import type { ContainerSizes } from '../../engine/container-usage.ts';
import type { ContainerView } from '../../engine/engine.ts';
import { isAtLeast, type ApiVersion } from '../api-version.ts';
import { encodeEndpoints } from './container-networks.ts';
import { encodeMountPoints } from './mount-points.ts';
import { statusText } from './status-text.ts';

/** One element of `GET /containers/json`. Source: moby api/docs/v1.51.yaml, definition ContainerSummary; `Bulkhead` is ours. */
export function encodeContainerSummary(
  view: ContainerView,
  version: ApiVersion,
  nowMs: number,
  sizes?: ContainerSizes,
): Record<string, unknown> {
  const annotations = view.hostConfig['Annotations'];
  const withAnnotations = isAtLeast(version, '1.46') && annotations ? { Annotations: annotations } : {};
  return {
    Id: view.id,
    Names: [`/${view.name}`],
    Image: view.imageReference,
    ImageID: view.imageId,
    Command: commandText(view.command),
    Created: Math.trunc(view.createdAtMs / 1000),
    Ports: encodePorts(view),
    ...encodeSizes(sizes),
    Labels: view.config.Labels ?? {},
    State: view.state.status,
    Status: statusText(view.state, nowMs, view.health?.status),
    HostConfig: { NetworkMode: networkMode(view), ...withAnnotations },
    NetworkSettings: { Networks: encodeEndpoints(view, version) },
    Mounts: encodeMountPoints(view.hostConfig),
    Bulkhead: { wall: view.facts.wall, accelerator: view.facts.accelerator },
  };
}

/** Only for those who asked: it takes a walk through what the container wrote. */
export function encodeSizes(sizes: ContainerSizes | undefined): Record<string, number> {
  return sizes ? { SizeRw: sizes.writtenBytes, SizeRootFs: sizes.rootBytes } : {};
}

function networkMode(view: ContainerView): string {
  const mode = view.hostConfig.NetworkMode ?? '';
  return mode === '' || mode === 'default' ? 'bridge' : mode;
}

/** Program and arguments in one line; arguments with a space in quotes (moby daemon/list.go). */
function commandText(command: readonly string[]): string {
  const [program = '', ...rest] = command;
  return [program, ...rest.map((argument) => (argument.includes(' ') ? `'${argument}'` : argument))].join(' ');
}

function encodePorts(view: ContainerView): Record<string, unknown>[] {
  return Object.entries(view.ports).flatMap(([port, published]): Record<string, unknown>[] => {
    const [number = '0', protocol = 'tcp'] = port.split('/');
    const inside = { PrivatePort: Number(number), Type: protocol };
    if (published === null) return [inside];
    return published.map(({ hostIp, hostPort }) => ({ IP: hostIp, ...inside, PublicPort: hostPort }));
  });
}
