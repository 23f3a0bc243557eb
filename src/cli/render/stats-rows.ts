import type { StatsAnswer } from '../../client/index.ts';
import type { Row } from './format-rows.ts';
import { formatBinaryBytes, formatDecimalBytes, shortId } from './units.ts';

export const STATS_HEADERS = {
  BlockIO: 'BLOCK I/O',
  CPUPerc: 'CPU %',
  Container: 'CONTAINER',
  ID: 'CONTAINER ID',
  Machine: 'MACHINE',
  MemPerc: 'MEM %',
  MemUsage: 'MEM USAGE / LIMIT',
  Name: 'NAME',
  NetIO: 'NET I/O',
  PIDs: 'PIDS',
};

/** Docker's columns; ours is the last: what the machine's process holds of the host's memory. */
export const STATS_TABLE =
  '{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}\t{{.Machine}}';

const UNKNOWN = '--';

/** Members of a container for `stats --format`. Without an answer, of one that was never heard of. */
export function describeStatsRow(container: string, answer: StatsAnswer | undefined, truncates: boolean): Row {
  if (!answer) {
    return {
      BlockIO: UNKNOWN,
      CPUPerc: UNKNOWN,
      Container: container,
      ID: UNKNOWN,
      Machine: UNKNOWN,
      MemPerc: UNKNOWN,
      MemUsage: `${UNKNOWN} / ${UNKNOWN}`,
      Name: UNKNOWN,
      NetIO: UNKNOWN,
      PIDs: UNKNOWN,
    };
  }
  const used = memoryInUse(answer);
  const limit = answer.memory_stats?.limit ?? 0;
  const traffic = Object.values(answer.networks ?? {});
  const machine = answer.Bulkhead?.machine;
  return {
    BlockIO: pair(sumOf(answer, 'read'), sumOf(answer, 'write')),
    CPUPerc: `${cpuPercent(answer).toFixed(2)}%`,
    Container: container,
    ID: truncates ? shortId(answer.id) : answer.id,
    Machine: machine ? formatBinaryBytes(machine.pssBytes) : UNKNOWN,
    MemPerc: `${(limit > 0 ? (used / limit) * 100 : 0).toFixed(2)}%`,
    MemUsage: `${formatBinaryBytes(used)} / ${formatBinaryBytes(limit)}`,
    Name: answer.name.replace(/^\//, ''),
    NetIO: pair(
      traffic.reduce((sum, { rx_bytes: bytes }) => sum + bytes, 0),
      traffic.reduce((sum, { tx_bytes: bytes }) => sum + bytes, 0),
    ),
    PIDs: String(answer.pids_stats?.current ?? 0),
  };
}

/** Of one CPU: two busy ones are 200. Needs the sample before. Source: docker/cli cli/command/container/stats_helpers.go. */
function cpuPercent({ cpu_stats: now, precpu_stats: before }: StatsAnswer): number {
  const used = now.cpu_usage.total_usage - before.cpu_usage.total_usage;
  const passed = now.system_cpu_usage - before.system_cpu_usage;
  return used > 0 && passed > 0 && before.system_cpu_usage > 0 ? (used / passed) * now.online_cpus * 100 : 0;
}

/** Without the page cache that nobody has looked at for long, as Docker counts; the names are those of cgroup versions 1 and 2. */
function memoryInUse({ memory_stats: memory }: StatsAnswer): number {
  const usage = memory?.usage ?? 0;
  const inactive = memory?.stats?.['total_inactive_file'] ?? memory?.stats?.['inactive_file'] ?? 0;
  return inactive < usage ? usage - inactive : usage;
}

function sumOf({ blkio_stats: blocks }: StatsAnswer, operation: string): number {
  const entries = blocks?.io_service_bytes_recursive ?? [];
  return entries.filter(({ op }) => op.toLowerCase() === operation).reduce((sum, { value }) => sum + value, 0);
}

function pair(first: number, second: number): string {
  return `${formatDecimalBytes(first)} / ${formatDecimalBytes(second)}`;
}
