import type { ContainerPort, ContainerSummary, WallAnswer } from '../../client/index.ts';
import type { Row } from './format-rows.ts';
import { ellipsize, formatDecimalBytes, formatDuration, formatGoTime, shortId } from './units.ts';

export const CONTAINER_HEADERS = {
  ID: 'CONTAINER ID',
  Names: 'NAMES',
  Image: 'IMAGE',
  Command: 'COMMAND',
  CreatedAt: 'CREATED AT',
  RunningFor: 'CREATED',
  Ports: 'PORTS',
  State: 'STATE',
  Status: 'STATUS',
  Size: 'SIZE',
  Labels: 'LABELS',
  Mounts: 'MOUNTS',
  LocalVolumes: 'LOCAL VOLUMES',
  Networks: 'NETWORKS',
  Platform: 'PLATFORM',
  Wall: 'WALL',
};

/** Docker's columns; ours is the last. */
export const CONTAINER_TABLE =
  '{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Wall}}';
export const CONTAINER_TABLE_WITH_SIZE =
  '{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}\t{{.Wall}}';

/** Members of a container for `ps --format`. */
export function describeContainerRow(container: ContainerSummary, options: { truncates: boolean; nowMs: number }): Row {
  const { truncates, nowMs } = options;
  const names = container.Names.map((name) => name.replace(/^\//, ''));
  const mounts = (container.Mounts ?? []).map((mount) => mount.Name || mount.Source);
  const labels = container.Labels;
  return {
    Command: JSON.stringify(truncates ? ellipsize(container.Command, 20) : container.Command),
    // Read only if a template asks: time zone names cost 20 ms.
    get CreatedAt() {
      return formatGoTime(container.Created);
    },
    ID: truncates ? shortId(container.Id) : container.Id,
    Image: displayedImage(container, truncates),
    Labels: Object.entries(labels)
      .map(([key, value]) => `${key}=${value}`)
      .sort()
      .join(','),
    LocalVolumes: String((container.Mounts ?? []).filter((mount) => mount.Driver === 'local').length),
    Mounts: mounts.map((mount) => (truncates ? ellipsize(mount, 15) : mount)).join(','),
    // Names with a further slash are links of other containers to this one.
    Names: (truncates ? names.filter((name) => !name.includes('/')) : names).join(','),
    Networks: Object.keys(container.NetworkSettings?.Networks ?? {})
      .sort()
      .join(','),
    Platform: null,
    Ports: formatPorts(container.Ports ?? []),
    RunningFor: `${formatDuration(nowMs - container.Created * 1000)} ago`,
    Size: formatSizes(container),
    State: container.State,
    Status: container.Status,
    Wall: formatWall(container.Bulkhead),
    Label: (name: unknown) => labels[String(name)] ?? '',
  };
}

/** The wall and what runs it; emulation is never passed off as hardware. */
export function formatWall(wall: WallAnswer | null | undefined): string {
  if (wall?.wall === 'vm') return wall.accelerator === 'tcg' ? 'vm (emulated)' : 'vm';
  return wall?.wall ?? '';
}

function displayedImage(container: ContainerSummary, truncates: boolean): string {
  if (container.Image === '') return '<no image>';
  if (!truncates) return container.Image;
  if (container.ImageID !== '' && shortId(container.ImageID) === shortId(container.Image))
    return shortId(container.ImageID);
  return container.Image.replace(/@sha256:[0-9a-f]+$/, '');
}

function formatSizes({ SizeRw, SizeRootFs }: ContainerSummary): string {
  const size = formatDecimalBytes(SizeRw ?? 0);
  return (SizeRootFs ?? 0) > 0 ? `${size} (virtual ${formatDecimalBytes(SizeRootFs ?? 0)})` : size;
}

/** `0.0.0.0:8080->80/tcp, 443/tcp`; ports in a row are told as ranges where inside and outside are alike. */
export function formatPorts(ports: readonly ContainerPort[]): string {
  const sorted = [...ports].sort(
    (left, right) =>
      left.PrivatePort - right.PrivatePort ||
      compareText(left.IP ?? '', right.IP ?? '') ||
      (left.PublicPort ?? 0) - (right.PublicPort ?? 0) ||
      compareText(left.Type, right.Type),
  );
  interface Range {
    readonly ip: string;
    readonly type: string;
    readonly first: number;
    last: number;
  }
  const finished: Range[] = [];
  const mapped: string[] = [];
  const open = new Map<string, Range>();
  for (const { IP, PrivatePort, PublicPort, Type } of sorted) {
    const ip = IP ?? '';
    if (ip !== '' && PublicPort !== PrivatePort) {
      mapped.push(`${joinHostPort(ip, String(PublicPort ?? 0))}->${PrivatePort}/${Type}`);
      continue;
    }
    const key = `${ip}/${Type}`;
    const range = open.get(key);
    if (range !== undefined && PrivatePort === range.last + 1) {
      range.last = PrivatePort;
      continue;
    }
    if (range !== undefined) finished.push(range);
    open.set(key, { ip, type: Type, first: PrivatePort, last: PrivatePort });
  }
  const ranges = [...finished, ...open.values()].map(({ ip, type, first, last }) => {
    const span = first === last ? String(first) : `${first}-${last}`;
    return ip === '' ? `${span}/${type}` : `${joinHostPort(ip, span)}->${span}/${type}`;
  });
  return [...ranges, ...mapped].join(', ');
}

function joinHostPort(ip: string, port: string): string {
  return ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`;
}

function compareText(left: string, right: string): number {
  return left < right ? -1 : left > right ? 1 : 0;
}
