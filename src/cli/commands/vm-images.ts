import { open } from 'node:fs/promises';
import { EngineError, systemErrorCode } from '../../core/errors.ts';
import { defineCommand, printLine } from '../command.ts';
import { FORMAT_FLAG } from '../flags/shared-flags.ts';
import { formatRows } from '../render/format-rows.ts';
import { formatBinaryBytes } from '../render/units.ts';
import { abortOnSignals } from './disk-flags.ts';
import { forEachNameInOrder } from './for-each-name.ts';

export const vmImageListCommand = defineCommand({
  usage: '[OPTIONS]',
  flags: { format: FORMAT_FLAG },
  arity: { min: 0, max: 0 },
  async run(context, flags) {
    const images = await context.client().guests.listImages();
    const rows = images.map((image) => ({
      Name: image.name,
      Here: image.isPresent ? 'yes' : 'no, built at the first launch',
      Disk: image.isPresent ? formatBinaryBytes(image.virtualBytes) : '',
      Size: image.isPresent ? formatBinaryBytes(image.actualBytes) : '',
      UsedBy: image.usedBy.join(', '),
    }));
    context.stdout.write(
      formatRows(rows, {
        format: flags.format,
        defaultTable: '{{.Name}}\t{{.Disk}}\t{{.Size}}\t{{.Here}}\t{{.UsedBy}}',
        headers: { Name: 'IMAGE', Here: 'HERE', Disk: 'DISK', Size: 'SIZE', UsedBy: 'USED BY' },
      }),
    );
  },
});

export const vmImageImportCommand = defineCommand({
  usage: 'FILE NAME',
  flags: {},
  arity: { min: 2, max: 2 },
  async run(context, _flags, [path = '', name = '']) {
    using signals = abortOnSignals();
    await using file = await open(path, 'r').catch((error: unknown) => {
      throw new EngineError('not-found', `cannot read ${path}: ${systemErrorCode(error)}`, { cause: error });
    });
    const image = await context.client().guests.importImage(name, file.createReadStream({ autoClose: false }), signals);
    printLine(context.stdout, image.name);
  },
});

export const vmImageRemoveCommand = defineCommand({
  usage: 'IMAGE [IMAGE...]',
  flags: {},
  arity: { min: 1 },
  async run(context, _flags, names) {
    await forEachNameInOrder(context, names, async (name) => {
      await context.client().guests.removeImage(name);
      printLine(context.stdout, name);
    });
  },
});
