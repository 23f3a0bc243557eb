import { parseRestartPolicy } from '../container/policy-specs.ts';
import { RESOURCE_FLAGS } from '../container/resource-flags.ts';
import { defineCommand, printLine } from '../command.ts';
import { UsageError } from '../flags/parse-flags.ts';
import { parseBytesOrUnlimited, parseNanoCpus } from '../flags/quantities.ts';
import { forEachNameInOrder } from './for-each-name.ts';

export const updateCommand = defineCommand({
  usage: '[OPTIONS] CONTAINER [CONTAINER...]',
  flags: {
    ...RESOURCE_FLAGS,
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
