import type { ContainerView } from '../../engine/engine.ts';
import type { ContainerStats } from '../../wire/shim-usage.ts';

const NEVER = '0001-01-01T00:00:00Z';

/**
 * `GET /containers/{id}/stats`: one sample, with the one before it. Without a sample the container does not run, and all is zero.
 * Source: moby api/types/container/stats.go; `Bulkhead` is ours: what a machine costs the host.
 */
export function encodeStats(
  view: Pick<ContainerView, 'id' | 'name'>,
  sample: ContainerStats | undefined,
  previous: ContainerStats | undefined,
): Record<string, unknown> {
  return {
    name: `/${view.name}`,
    id: view.id,
    read: readTime(sample),
    preread: readTime(previous),
    pids_stats: sample
      ? { current: sample.pids.current, ...(sample.pids.limit > 0 ? { limit: sample.pids.limit } : {}) }
      : {},
    blkio_stats: encodeBlockIo(sample),
    num_procs: 0,
    storage_stats: {},
    cpu_stats: encodeCpu(sample),
    precpu_stats: encodeCpu(previous),
    memory_stats: encodeMemory(sample),
    ...(sample ? { networks: encodeNetworks(sample) } : {}),
    ...(sample?.machine ? { Bulkhead: { machine: sample.machine } } : {}),
  };
}

function readTime(sample: ContainerStats | undefined): string {
  if (!sample) return NEVER;
  const milliseconds = Math.floor(sample.readAtNs / 1e6);
  const rest = String(Math.floor(sample.readAtNs) % 1_000_000).padStart(6, '0');
  return new Date(milliseconds).toISOString().replace('Z', `${rest}Z`);
}

function encodeCpu(sample: ContainerStats | undefined): Record<string, unknown> {
  const { cpu } = sample ?? {};
  return {
    cpu_usage: {
      total_usage: cpu?.totalNs ?? 0,
      usage_in_kernelmode: cpu?.systemNs ?? 0,
      usage_in_usermode: cpu?.userNs ?? 0,
    },
    ...(cpu ? { system_cpu_usage: cpu.ofAllCpusNs, online_cpus: cpu.onlineCpus } : {}),
    throttling_data: {
      periods: cpu?.periods ?? 0,
      throttled_periods: cpu?.throttledPeriods ?? 0,
      throttled_time: cpu?.throttledNs ?? 0,
    },
  };
}

function encodeMemory(sample: ContainerStats | undefined): Record<string, unknown> {
  if (!sample) return {};
  const { usageBytes, maxUsageBytes, limitBytes, failures, details } = sample.memory;
  return {
    usage: usageBytes,
    ...(maxUsageBytes > 0 ? { max_usage: maxUsageBytes } : {}),
    stats: details,
    ...(failures > 0 ? { failcnt: failures } : {}),
    limit: limitBytes,
  };
}

function encodeBlockIo(sample: ContainerStats | undefined): Record<string, unknown> {
  const entries = (read: 'readBytes' | 'reads', write: 'writtenBytes' | 'writes'): object[] | null =>
    sample?.blockIo.flatMap((device) => [
      { major: device.major, minor: device.minor, op: 'read', value: device[read] },
      { major: device.major, minor: device.minor, op: 'write', value: device[write] },
    ]) ?? null;
  return {
    io_service_bytes_recursive: entries('readBytes', 'writtenBytes'),
    io_serviced_recursive: entries('reads', 'writes'),
    io_queue_recursive: null,
    io_service_time_recursive: null,
    io_wait_time_recursive: null,
    io_merged_recursive: null,
    io_time_recursive: null,
    sectors_recursive: null,
  };
}

function encodeNetworks(sample: ContainerStats): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(sample.networks).map(([name, traffic]) => [
      name,
      {
        rx_bytes: traffic.rxBytes,
        rx_packets: traffic.rxPackets,
        rx_errors: traffic.rxErrors,
        rx_dropped: traffic.rxDropped,
        tx_bytes: traffic.txBytes,
        tx_packets: traffic.txPackets,
        tx_errors: traffic.txErrors,
        tx_dropped: traffic.txDropped,
      },
    ]),
  );
}
