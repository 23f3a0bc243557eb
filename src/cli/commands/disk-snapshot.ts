import { defineCommand, printLine } from '../command.ts';
import { FORMAT_FLAG } from '../flags/shared-flags.ts';
import { formatRows } from '../render/format-rows.ts';
import { formatBinaryBytes } from '../render/units.ts';
import { DISK_FLAGS, formatOf } from './disk-flags.ts';

const isOffline = (): boolean => true;

function snapshotCommand(action: 'create' | 'restore' | 'delete') {
  return defineCommand({
    usage: '[OPTIONS] IMAGE SNAPSHOT',
    flags: DISK_FLAGS,
    arity: { min: 2, max: 2 },
    isOffline,
    async run(context, flags, [path = '', name = '']) {
      const tools = await context.disks(flags['allow-path']);
      await tools.snapshot(path, { format: formatOf(flags['image-format']), action, name });
      printLine(context.stdout, name);
    },
  });
}

export const diskSnapshotCreateCommand = snapshotCommand('create');
export const diskSnapshotRestoreCommand = snapshotCommand('restore');
export const diskSnapshotDeleteCommand = snapshotCommand('delete');

export const diskSnapshotListCommand = defineCommand({
  usage: '[OPTIONS] IMAGE',
  flags: { ...DISK_FLAGS, format: FORMAT_FLAG },
  arity: { min: 1, max: 1 },
  isOffline,
  async run(context, flags, [path = '']) {
    const tools = await context.disks(flags['allow-path']);
    const { snapshots } = await tools.info(path, { format: formatOf(flags['image-format']) });
    const rows = snapshots.map((one) => ({
      Name: one.name,
      Created: new Date(one.createdAtMs).toISOString(),
      Memory: one.vmStateBytes === 0 ? 'no' : formatBinaryBytes(one.vmStateBytes),
    }));
    context.stdout.write(
      formatRows(rows, {
        format: flags.format,
        defaultTable: '{{.Name}}\t{{.Created}}\t{{.Memory}}',
        headers: { Name: 'SNAPSHOT', Created: 'CREATED', Memory: 'MEMORY' },
      }),
    );
  },
});
