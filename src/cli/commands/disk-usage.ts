import { defineCommand } from '../command.ts';
import { FORMAT_FLAG } from '../flags/shared-flags.ts';
import { formatRows, type Row } from '../render/format-rows.ts';
import { formatDecimalBytes } from '../render/units.ts';
import type { DiskUsageAnswer } from '../../client/index.ts';

const HEADERS = { Type: 'TYPE', TotalCount: 'TOTAL', Active: 'ACTIVE', Size: 'SIZE', Reclaimable: 'RECLAIMABLE' };
const TABLE = '{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}';

export const diskUsageCommand = defineCommand({
  usage: '[OPTIONS]',
  flags: { format: FORMAT_FLAG },
  arity: { min: 0, max: 0 },
  async run(context, flags) {
    const usage = await context.client().system.diskUsage();
    const rows = describeDiskUsage(usage);
    context.stdout.write(formatRows(rows, { format: flags.format, defaultTable: TABLE, headers: HEADERS }));
  },
});

/** Docker's four rows. Source: docker/cli cli/command/formatter/disk_usage.go. */
function describeDiskUsage({ LayersSize, Images, Containers, Volumes }: DiskUsageAnswer): Row[] {
  const used = Images.filter((image) => image.Containers > 0);
  const usedBytes = sum(used.map(({ Size }) => Size));
  const running = Containers.filter(({ State }) => ['running', 'paused', 'restarting'].includes(State));
  const containerBytes = sum(Containers.map(({ SizeRw }) => SizeRw ?? 0));
  const idleBytes = containerBytes - sum(running.map(({ SizeRw }) => SizeRw ?? 0));
  const volumeBytes = sum(Volumes.map(({ UsageData }) => Math.max(0, UsageData?.Size ?? 0)));
  const activeVolumes = Volumes.filter(({ UsageData }) => (UsageData?.RefCount ?? 0) > 0);
  const freeVolumeBytes = volumeBytes - sum(activeVolumes.map(({ UsageData }) => Math.max(0, UsageData?.Size ?? 0)));
  return [
    row('Images', Images.length, used.length, LayersSize, Math.max(0, LayersSize - usedBytes)),
    row('Containers', Containers.length, running.length, containerBytes, idleBytes),
    row('Local Volumes', Volumes.length, activeVolumes.length, volumeBytes, freeVolumeBytes),
    row('Build Cache', 0, 0, 0, 0),
  ];
}

function row(type: string, total: number, active: number, bytes: number, reclaimable: number): Row {
  const share = bytes > 0 ? ` (${Math.trunc((reclaimable / bytes) * 100)}%)` : '';
  return {
    Type: type,
    TotalCount: String(total),
    Active: String(active),
    Size: formatDecimalBytes(bytes),
    Reclaimable: `${formatDecimalBytes(reclaimable)}${share}`,
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
