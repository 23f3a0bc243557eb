import { DISK_FORMATS, type DiskFormat, type DiskProgress } from '../../wire/guest-disk.ts';
import type { CommandContext } from '../command.ts';
import { defineFlags, type FlagSpec } from '../flags/flag-table.ts';
import { UsageError } from '../flags/parse-flags.ts';
import { parseBytes } from '../flags/quantities.ts';

const FORMAT_LIST = DISK_FORMATS.join(', ');

export function parseDiskFormat(text: string): DiskFormat {
  const format = DISK_FORMATS.find((one) => one === text);
  if (!format) throw new Error(`${JSON.stringify(text)} is none of ${FORMAT_LIST}`);
  return format;
}

/** A flag that names a format. */
export function formatFlag<const Spec extends { short?: string; summary: string }>(
  spec: Spec,
): Spec & { kind: 'string'; value: 'format'; check: NonNullable<FlagSpec['check']> } {
  return { ...spec, kind: 'string', value: 'format', check: parseDiskFormat };
}

export const DISK_FLAGS = defineFlags({
  'allow-path': {
    kind: 'list',
    summary: "Directory that the image's backing and data files may lie in, beside its own (repeatable)",
    value: 'directory',
  },
  'image-format': {
    kind: 'string',
    short: 'f',
    summary: `Format of the image (${FORMAT_LIST}); by its own mark unless given`,
    value: 'format',
    check: parseDiskFormat,
  },
});

/** What was checked when the flags were read. */
export function formatOf(text: string | undefined): DiskFormat | undefined {
  return text === undefined ? undefined : parseDiskFormat(text);
}

/** `10G`, `+2G`, `-512M`: absolute, or more or less than there is. */
export function parseDiskSize(text: string): { kind: 'absolute' | 'grow' | 'shrink'; bytes: number } {
  const sign = /^[+-]/.exec(text)?.[0];
  try {
    const bytes = parseBytes(sign === undefined ? text : text.slice(1));
    return { kind: sign === '+' ? 'grow' : sign === '-' ? 'shrink' : 'absolute', bytes };
  } catch {
    throw new UsageError(`${JSON.stringify(text)} is no size; write for example 10G, +2G or -512M`);
  }
}

/** One line that is redrawn on a terminal; in a log, a line for every tenth. */
export function showPercent(context: CommandContext, what: string): { onProgress: DiskProgress; done: () => void } {
  const { stderr } = context;
  let last = -1;
  return {
    onProgress: (percent) => {
      const step = stderr.isTTY === true ? Math.floor(percent) : Math.floor(percent / 10) * 10;
      if (step <= last) return;
      last = step;
      stderr.write(stderr.isTTY === true ? `\r\x1b[2K${what}: ${step}%` : `${what}: ${step}%\n`);
    },
    done: () => {
      if (stderr.isTTY === true && last >= 0) stderr.write('\r\x1b[2K');
    },
  };
}

/** Aborts at the first Ctrl-C or SIGTERM, until disposed: what is half-made is then taken away by who makes it. */
export function abortOnSignals(): Disposable & { readonly signal: AbortSignal } {
  const controller = new AbortController();
  const abort = (): void => controller.abort();
  const names = ['SIGINT', 'SIGTERM'] as const;
  for (const name of names) process.once(name, abort);
  return {
    signal: controller.signal,
    [Symbol.dispose]: () => {
      for (const name of names) process.removeListener(name, abort);
    },
  };
}
