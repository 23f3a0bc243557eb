import type { GuestAllocationRequest, GuestAllocationResult } from '../../wire/guest.ts';
import { defineCommand, printLine } from '../command.ts';
import { EXIT_ERROR } from '../exit-code.ts';
import { UsageError } from '../flags/parse-flags.ts';
import { parseBytes } from '../flags/quantities.ts';
import { formatBinaryBytes } from '../render/units.ts';

export const vmSetCommand = defineCommand({
  usage: '[OPTIONS] GUEST [cpus=N] [memory=SIZE] [disk.root=SIZE]',
  flags: { 'next-boot': { kind: 'boolean', summary: 'Change nothing now: it holds from the next start on' } },
  arity: { min: 2 },
  async run(context, flags, [name = '', ...wishes]) {
    const request = Object.assign({}, ...wishes.map(parseWish)) as GuestAllocationRequest;
    const nextBoot = flags['next-boot'] === true ? { nextBoot: true } : {};
    const { changes } = await context.client().guests.allocate(name, { ...request, ...nextBoot });
    for (const change of changes) printLine(context.stdout, describe(change));
    const isShort = changes.some(({ actual, note }) => actual !== undefined && note !== '');
    return isShort ? EXIT_ERROR : 0;
  },
});

function parseWish(text: string): GuestAllocationRequest {
  const [key = '', value = ''] = text.split(/=(.*)/s);
  try {
    switch (key) {
      case 'cpus':
        if (!/^[1-9]\d*$/.test(value)) throw new Error(`${JSON.stringify(value)} is no number of CPUs`);
        return { vcpus: Number(value) };
      case 'memory':
        return { memoryBytes: parseBytes(value) };
      case 'disk.root':
        return { diskBytes: parseBytes(value) };
      default:
        throw new Error('it is cpus=N, memory=SIZE or disk.root=SIZE');
    }
  } catch (error) {
    throw new UsageError(`invalid argument ${JSON.stringify(text)}: ${(error as Error).message}`);
  }
}

function describe({ what, asked, actual, note }: GuestAllocationResult['changes'][number]): string {
  const show = (amount: number): string => (what === 'cpus' ? String(amount) : formatBinaryBytes(amount));
  const confirmed = actual === undefined ? '' : `, in the guest ${show(actual)}`;
  return `${what}: ${show(asked)}${confirmed}${note === '' ? '' : ` (${note})`}`;
}
