import type { GuestView } from '../../wire/guest.ts';
import { defineCommand, printLine, type Command, type CommandContext } from '../command.ts';
import { defineFlags } from '../flags/flag-table.ts';
import { FORMAT_FLAG } from '../flags/shared-flags.ts';
import { formatRows, formatValue } from '../render/format-rows.ts';
import { formatBinaryBytes, formatDuration } from '../render/units.ts';
import { forEachName } from './for-each-name.ts';

const HEADERS = {
  Name: 'NAME',
  State: 'STATE',
  Image: 'IMAGE',
  VCPUs: 'VCPUS',
  Memory: 'MEMORY',
  Disk: 'DISK',
  Address: 'ADDRESS',
  Machine: 'MACHINE',
  ID: 'ID',
};

export const vmListCommand = defineCommand({
  usage: '[OPTIONS]',
  flags: {
    format: FORMAT_FLAG,
    quiet: { kind: 'boolean', short: 'q', summary: 'Only names' },
  },
  arity: { min: 0, max: 0 },
  async run(context, flags) {
    const guests = await context.client().guests.list();
    if (flags.quiet === true && flags.format === undefined) {
      for (const { name } of guests) printLine(context.stdout, name);
      return;
    }
    const rows = guests.map((guest) => ({
      Name: guest.name,
      State: describeState(guest),
      Image: guest.image,
      VCPUs: String(guest.vcpus),
      Memory: formatBinaryBytes(guest.memoryBytes),
      Disk: formatBinaryBytes(guest.disk.virtualBytes),
      Address: guest.network?.ipv4Address ?? '',
      Machine: describeMachine(guest),
      ID: guest.id,
    }));
    context.stdout.write(
      formatRows(rows, {
        format: flags.format,
        defaultTable:
          '{{.Name}}\t{{.State}}\t{{.Image}}\t{{.VCPUs}}\t{{.Memory}}\t{{.Disk}}\t{{.Address}}\t{{.Machine}}',
        headers: HEADERS,
      }),
    );
  },
});

export const vmInfoCommand = defineCommand({
  usage: '[OPTIONS] GUEST',
  flags: { format: FORMAT_FLAG },
  arity: { min: 1, max: 1 },
  async run(context, flags, [name = '']) {
    const guest = await context.client().guests.inspect(name);
    if (flags.format !== undefined) printLine(context.stdout, formatValue(guest, flags.format));
    else describe(context, guest);
  },
});

export const vmStartCommand = defineCommand({
  usage: 'GUEST [GUEST...]',
  flags: {},
  arity: { min: 1 },
  async run(context, _flags, names) {
    await forEachName(context, names, async (name) => {
      await context.client().guests.start(name);
      printLine(context.stdout, name);
    });
  },
});

const STOP_FLAGS = defineFlags({
  force: { kind: 'boolean', short: 'f', summary: 'End it at once, without its cooperation' },
  timeout: { kind: 'integer', short: 't', summary: 'Seconds that it has to shut down (default 60)' },
});

/** Both shut guests down; what comes then is all that tells them apart. */
function stoppingCommand(verb: 'stop' | 'restart'): Command {
  return defineCommand({
    usage: '[OPTIONS] GUEST [GUEST...]',
    flags: STOP_FLAGS,
    arity: { min: 1 },
    async run(context, flags, names) {
      const options = { force: flags.force ?? false, timeoutSeconds: flags.timeout };
      await forEachName(context, names, async (name) => {
        await context.client().guests[verb](name, options);
        printLine(context.stdout, name);
      });
    },
  });
}

export const vmStopCommand = stoppingCommand('stop');
export const vmRestartCommand = stoppingCommand('restart');

export const vmDeleteCommand = defineCommand({
  usage: '[OPTIONS] GUEST [GUEST...]',
  flags: { force: { kind: 'boolean', short: 'f', summary: 'Also a running one: it is killed' } },
  arity: { min: 1 },
  async run(context, flags, names) {
    await forEachName(context, names, async (name) => {
      await context.client().guests.delete(name, { force: flags.force ?? false });
      printLine(context.stdout, name);
    });
  },
});

function describeState(guest: GuestView): string {
  return guest.reason === '' ? guest.state : `${guest.state} (${guest.reason.split('\n', 1)[0] ?? ''})`;
}

/** Emulation is no hardware wall, and is called by its name everywhere. */
function describeMachine(guest: GuestView): string {
  return `${guest.machineType}${guest.accelerator === 'tcg' ? ' (emulated)' : ''}`;
}

function describe(context: CommandContext, guest: GuestView): void {
  const lines = [
    ['Name', guest.name],
    ['ID', guest.id],
    ['State', describeState(guest)],
    ...(guest.startedAtMs === undefined ? [] : [['Up', formatDuration(Date.now() - guest.startedAtMs)]]),
    ['Image', guest.image],
    ['Machine', `${describeMachine(guest)}, firmware ${guest.firmware}`],
    ['vCPUs', `${guest.vcpus} (at most ${guest.maxVcpus} while it runs)`],
    [
      'Memory',
      `${formatBinaryBytes(guest.memoryBytes)} (at most ${formatBinaryBytes(guest.maxMemoryBytes)} while it runs)`,
    ],
    ['Disk', `${formatBinaryBytes(guest.disk.virtualBytes)} ${guest.disk.path}`],
    [
      'Network',
      guest.network ? `${guest.network.name}, ${guest.network.ipv4Address}, ${guest.network.macAddress}` : 'none',
    ],
    ['Autostart', guest.autostart ? 'yes' : 'no'],
    ['Agent', guest.isAgentOpen ? 'answers' : 'none'],
    ...(guest.cloudInit ? [['cloud-init', `${guest.cloudInit.status} ${guest.cloudInit.detail}`.trimEnd()]] : []),
    ['Console log', guest.consoleLogPath],
  ] as const;
  for (const [label = '', value = ''] of lines) printLine(context.stdout, `${`${label}:`.padEnd(13)} ${value}`);
}
