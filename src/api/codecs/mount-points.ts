import type { HostConfig } from '../../wire/docker/container-config.ts';

/** `Mounts` of inspect and list: where host directories show in the container. */
export function encodeMountPoints(hostConfig: HostConfig): Record<string, unknown>[] {
  return [...(hostConfig.Binds ?? []).map(encodeBind), ...(hostConfig.Mounts ?? []).map(encodeMount)];
}

/** `source:target[:mode]`. */
function encodeBind(bind: string): Record<string, unknown> {
  const [source = '', destination = '', mode = ''] = bind.split(':');
  const isReadOnly = mode.split(',').includes('ro');
  return {
    Type: source.startsWith('/') ? 'bind' : 'volume',
    Source: source,
    Destination: destination,
    Mode: mode,
    RW: !isReadOnly,
    Propagation: 'rprivate',
  };
}

function encodeMount(mount: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return {
    Type: mount['Type'] ?? 'bind',
    Source: mount['Source'] ?? '',
    Destination: mount['Target'] ?? '',
    Mode: '',
    RW: mount['ReadOnly'] !== true,
    Propagation: mount['Type'] === 'bind' ? 'rprivate' : '',
  };
}
