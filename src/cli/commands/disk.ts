import type { DiskCheck, DiskLayer, DiskReport } from '../../wire/guest-disk.ts';
import { defineCommand, printLine, type CommandContext } from '../command.ts';
import { EXIT_ERROR } from '../exit-code.ts';
import { UsageError } from '../flags/parse-flags.ts';
import { FORMAT_FLAG } from '../flags/shared-flags.ts';
import { formatValue } from '../render/format-rows.ts';
import { formatBinaryBytes } from '../render/units.ts';
import { abortOnSignals, DISK_FLAGS, formatFlag, formatOf, parseDiskSize, showPercent } from './disk-flags.ts';
import { forEachNameInOrder } from './for-each-name.ts';

/*
 * Disk images are files of whoever calls: they are worked on here, with the caller's own rights. Through the daemon every client could
 * have any file of the host opened by root.
 */

const isOffline = (): boolean => true;

export const diskCreateCommand = defineCommand({
  usage: '[OPTIONS] IMAGE [SIZE]',
  flags: {
    'allow-path': DISK_FLAGS['allow-path'],
    base: { kind: 'string', short: 'b', summary: 'Image that the new one stands on; only qcow2 can', value: 'image' },
    'base-format': formatFlag({ short: 'F', summary: 'Format of the base; by its own mark unless given' }),
    'image-format': formatFlag({ short: 'f', summary: 'Format of the new image (default qcow2)' }),
    preallocation: {
      kind: 'string',
      summary: 'off, metadata, falloc or full (default off)',
      check: (text) => {
        if (!['off', 'metadata', 'falloc', 'full'].includes(text))
          throw new Error('it is off, metadata, falloc or full');
      },
    },
  },
  arity: { min: 1, max: 2 },
  isOffline,
  async run(context, flags, [path = '', size]) {
    using signals = abortOnSignals();
    const parsed = size === undefined ? undefined : parseDiskSize(size);
    if (parsed !== undefined && parsed.kind !== 'absolute')
      throw new UsageError(`a new image has no size to add ${size} to`);
    const tools = await context.disks(flags['allow-path']);
    const spec = {
      format: formatOf(flags['image-format']) ?? 'qcow2',
      virtualBytes: parsed?.bytes,
      base: flags.base === undefined ? undefined : { path: flags.base, format: formatOf(flags['base-format']) },
      preallocation: flags.preallocation as 'off' | 'metadata' | 'falloc' | 'full' | undefined,
    };
    const report = await tools.create(path, spec, signals);
    printLine(context.stdout, report.path);
  },
});

export const diskInfoCommand = defineCommand({
  usage: '[OPTIONS] IMAGE',
  flags: { ...DISK_FLAGS, format: FORMAT_FLAG },
  arity: { min: 1, max: 1 },
  isOffline,
  async run(context, flags, [path = '']) {
    const tools = await context.disks(flags['allow-path']);
    showReport(context, await tools.info(path, { format: formatOf(flags['image-format']) }), flags.format);
  },
});

export const diskResizeCommand = defineCommand({
  usage: '[OPTIONS] IMAGE SIZE',
  flags: {
    ...DISK_FLAGS,
    shrink: { kind: 'boolean', summary: 'Allow a smaller size, which cuts off the end of the disk' },
    yes: { kind: 'boolean', short: 'y', summary: 'Confirm that what is at the end may be lost' },
  },
  arity: { min: 2, max: 2 },
  isOffline,
  async run(context, flags, [path = '', size = '']) {
    const tools = await context.disks(flags['allow-path']);
    const report = await tools.resize(path, {
      format: formatOf(flags['image-format']),
      size: parseDiskSize(size),
      shrink: flags.shrink ?? false,
      confirmed: flags.yes ?? false,
    });
    printLine(context.stdout, `${report.path}: ${formatBinaryBytes(report.virtualBytes)}`);
  },
});

export const diskConvertCommand = defineCommand({
  usage: '[OPTIONS] SOURCE TARGET',
  flags: {
    ...DISK_FLAGS,
    compress: { kind: 'boolean', short: 'c', summary: 'Write compressed clusters (qcow2)' },
    'output-format': formatFlag({ short: 'O', summary: 'Format of the copy (default qcow2)' }),
  },
  arity: { min: 2, max: 2 },
  isOffline,
  async run(context, flags, [source = '', target = '']) {
    using signals = abortOnSignals();
    const tools = await context.disks(flags['allow-path']);
    const progress = showPercent(context, 'Converting');
    const spec = {
      sourceFormat: formatOf(flags['image-format']),
      targetFormat: formatOf(flags['output-format']) ?? 'qcow2',
      compress: flags.compress ?? false,
      onProgress: progress.onProgress,
    };
    const report = await tools.convert(source, target, spec, signals).finally(progress.done);
    printLine(context.stdout, report.path);
  },
});

export const diskCheckCommand = defineCommand({
  usage: '[OPTIONS] IMAGE',
  flags: {
    ...DISK_FLAGS,
    format: FORMAT_FLAG,
    repair: {
      kind: 'string',
      short: 'r',
      summary: 'leaks (space that nothing refers to) or all',
      check: (text) => {
        if (text !== 'leaks' && text !== 'all') throw new Error('it is leaks or all');
      },
    },
  },
  arity: { min: 1, max: 1 },
  isOffline,
  async run(context, flags, [path = '']) {
    using signals = abortOnSignals();
    const tools = await context.disks(flags['allow-path']);
    const repair = (flags.repair ?? 'none') as 'none' | 'leaks' | 'all';
    const report = await tools.check(path, { format: formatOf(flags['image-format']), repair }, signals);
    printLine(context.stdout, flags.format === undefined ? describeCheck(report) : formatValue(report, flags.format));
    return report.corruptions + report.leaks + report.checkErrors === 0 ? 0 : EXIT_ERROR;
  },
});

export const diskRebaseCommand = defineCommand({
  usage: '[OPTIONS] IMAGE',
  flags: {
    ...DISK_FLAGS,
    base: { kind: 'string', short: 'b', summary: "The new base; '' makes the image independent", value: 'image' },
    'base-format': formatFlag({ short: 'F', summary: 'Format of the base; by its own mark unless given' }),
    'reference-only': {
      kind: 'boolean',
      short: 'u',
      summary: 'Only rewrite the reference: for a base that was moved or renamed, and has the same content',
    },
  },
  arity: { min: 1, max: 1 },
  isOffline,
  async run(context, flags, [path = '']) {
    if (flags.base === undefined) throw new UsageError("--base is missing: the new base, or '' for none");
    using signals = abortOnSignals();
    const tools = await context.disks(flags['allow-path']);
    const progress = showPercent(context, 'Rebasing');
    const spec = {
      format: formatOf(flags['image-format']),
      base: flags.base === '' ? undefined : { path: flags.base, format: formatOf(flags['base-format']) },
      referenceOnly: flags['reference-only'] ?? false,
      onProgress: progress.onProgress,
    };
    const report = await tools.rebase(path, spec, signals).finally(progress.done);
    printLine(context.stdout, `${report.path}: on ${report.backing[0]?.path ?? 'no base'}`);
  },
});

export const diskCommitCommand = defineCommand({
  usage: '[OPTIONS] IMAGE',
  flags: DISK_FLAGS,
  arity: { min: 1, max: 1 },
  isOffline,
  async run(context, flags, [path = '']) {
    const tools = await context.disks(flags['allow-path']);
    const progress = showPercent(context, 'Committing');
    const spec = { format: formatOf(flags['image-format']), onProgress: progress.onProgress };
    // Not to be cancelled: a base that is half-written belongs to nobody.
    const report = await tools.commit(path, spec).finally(progress.done);
    printLine(context.stdout, `${report.path}: committed to ${report.backing[0]?.path ?? ''}`);
  },
});

export const diskRemoveCommand = defineCommand({
  usage: '[OPTIONS] IMAGE [IMAGE...]',
  flags: { 'allow-path': DISK_FLAGS['allow-path'] },
  arity: { min: 1 },
  isOffline,
  async run(context, flags, paths) {
    const tools = await context.disks(flags['allow-path']);
    await forEachNameInOrder(context, paths, async (path) => {
      await tools.remove(path);
      printLine(context.stdout, path);
    });
  },
});

function showReport(context: CommandContext, report: DiskReport, format: string | undefined): void {
  if (format !== undefined) {
    printLine(context.stdout, formatValue(report, format));
    return;
  }
  const lines = [
    ...describeLayer(report),
    ...report.backing.flatMap((layer, index) => [
      `Base ${index + 1}:`,
      ...describeLayer(layer).map((line) => `  ${line}`),
    ]),
    `In use by: ${report.users.join(', ') || 'nobody'}`,
  ];
  for (const line of lines) printLine(context.stdout, line);
}

function describeLayer(layer: DiskLayer): string[] {
  const faults = [...(layer.isDirty ? ['not closed in order'] : []), ...(layer.isCorrupt ? ['corrupt'] : [])];
  return [
    `Path: ${layer.path}`,
    `Format: ${layer.format}`,
    `Virtual size: ${formatBinaryBytes(layer.virtualBytes)} (${layer.virtualBytes} bytes)`,
    `On disk: ${formatBinaryBytes(layer.actualBytes)}`,
    ...(layer.dataPaths.length === 0 ? [] : [`Data in: ${layer.dataPaths.join(', ')}`]),
    ...(layer.snapshots.length === 0 ? [] : [`Snapshots: ${layer.snapshots.map(({ name }) => name).join(', ')}`]),
    ...(faults.length === 0 ? [] : [`State: ${faults.join(', ')}; run: bulkhead disk check ${layer.path}`]),
  ];
}

function describeCheck(report: DiskCheck): string {
  const found = `${report.corruptions} corruptions, ${report.leaks} leaked clusters, ${report.checkErrors} errors of the check`;
  const fixed = report.corruptionsFixed + report.leaksFixed;
  const sound = report.corruptions + report.leaks + report.checkErrors === 0;
  return `${report.path}: ${sound ? 'sound' : found}${fixed === 0 ? '' : ` (${fixed} repaired)`}`;
}
