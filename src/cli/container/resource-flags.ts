import { defineFlags } from '../flags/flag-table.ts';
import { parseBytes, parseBytesOrUnlimited, parseNanoCpus } from '../flags/quantities.ts';

/** Limits that a container is given at its creation, and that `update` changes. */
export const RESOURCE_FLAGS = defineFlags({
  'cpu-period': { kind: 'integer', summary: 'Limit CPU CFS (Completely Fair Scheduler) period, in microseconds' },
  'cpu-quota': { kind: 'integer', summary: 'Limit CPU CFS (Completely Fair Scheduler) quota, in microseconds' },
  'cpu-shares': { kind: 'integer', short: 'c', summary: 'CPU shares (relative weight)' },
  cpus: { kind: 'string', summary: 'Number of CPUs', value: 'decimal', check: parseNanoCpus },
  'cpuset-cpus': { kind: 'string', summary: 'CPUs in which to allow execution (0-3, 0,1)' },
  'cpuset-mems': { kind: 'string', summary: 'MEMs in which to allow execution (0-3, 0,1)' },
  memory: { kind: 'string', short: 'm', summary: 'Memory limit', value: 'bytes', check: parseBytes },
  'memory-reservation': { kind: 'string', summary: 'Memory soft limit', value: 'bytes', check: parseBytes },
  'memory-swap': {
    kind: 'string',
    summary: "Swap limit equal to memory plus swap: '-1' to enable unlimited swap",
    value: 'bytes',
    check: parseBytesOrUnlimited,
  },
  'pids-limit': { kind: 'integer', summary: 'Tune container pids limit (set -1 for unlimited)' },
});
