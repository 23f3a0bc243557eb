import { parseRestartPolicy } from '../container/policy-specs.ts';
import { defineCommand, printLine } from '../command.ts';
import { UsageError } from '../flags/parse-flags.ts';
import { parseBytes, parseBytesOrUnlimited, parseNanoCpus } from '../flags/quantities.ts';
import { forEachNameInOrder } from './for-each-name.ts';

export const updateCommand = defineCommand({
  usage: '[OPTIONS] CONTAINER [CONTAINER...]',
  flags: {
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
    restart: {
      kind: 'string',
      summary: 'Restart policy to apply when a container exits',
      value: 'no|always|unless-stopped|on-failure[:max]',
      check: parseRestartPolicy,
    },
  },
  arity: { min: 1 },
  async run(context, flags, names) {
    const bytes = (text: string | undefined): number | undefined =>
      text === undefined ? undefined : parseBytesOrUnlimited(text);
    const wanted = {
      CpuPeriod: flags['cpu-period'],
      CpuQuota: flags['cpu-quota'],
      CpuShares: flags['cpu-shares'],
      NanoCpus: flags.cpus === undefined ? undefined : parseNanoCpus(flags.cpus),
      CpusetCpus: flags['cpuset-cpus'],
      CpusetMems: flags['cpuset-mems'],
      Memory: bytes(flags.memory),
      MemoryReservation: bytes(flags['memory-reservation']),
      MemorySwap: bytes(flags['memory-swap']),
      PidsLimit: flags['pids-limit'],
      RestartPolicy: flags.restart === undefined ? undefined : parseRestartPolicy(flags.restart),
    };
    const given = Object.fromEntries(Object.entries(wanted).filter(([, value]) => value !== undefined));
    if (Object.keys(given).length === 0) {
      throw new UsageError('you must provide one or more flags when using this command');
    }
    await forEachNameInOrder(context, names, async (name) => {
      const { Warnings } = await context.client().containers.update(name, given);
      for (const warning of Warnings) context.stderr.write(`WARNING: ${warning}\n`);
      printLine(context.stdout, name);
    });
  },
});
