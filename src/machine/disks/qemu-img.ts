import { z } from 'zod';
import { EngineError } from '../../core/errors.ts';
import { runProgram, type ProgramOptions } from '../../platform/exec.ts';
import type { DiskCheck, DiskFormat, DiskLayer, DiskProgress } from '../../wire/guest-disk.ts';

/*
 * Every call of qemu-img that Bulkhead makes. Formats are always named, never guessed; answers are read as JSON. Callers have inspected the
 * image and its chain before (`inspect-image.ts`), and hand in absolute paths: a path that begins with a slash is never taken for a protocol.
 */

/** Conversions and commits move whole disks: only their signal ends them. */
const NO_TIMEOUT = { timeoutMs: 0 };

interface CallOptions {
  readonly signal?: AbortSignal | undefined;
}

const infoSchema = z.object({
  filename: z.string(),
  format: z.string(),
  'virtual-size': z.number(),
  'actual-size': z.number().default(0),
  'dirty-flag': z.boolean().default(false),
  snapshots: z
    .array(
      z.object({
        id: z.string(),
        name: z.string(),
        'vm-state-size': z.number(),
        'date-sec': z.number(),
        'date-nsec': z.number(),
      }),
    )
    .default([]),
  'format-specific': z.object({ data: z.object({ corrupt: z.boolean().optional() }) }).optional(),
});

/** Of one image, its backing files not opened. Takes no lock, so it works while a machine runs on it. */
export async function qemuImgInfo(
  path: string,
  format: DiskFormat,
  options: CallOptions = {},
): Promise<Omit<DiskLayer, 'dataPaths'>> {
  const text = await call(['info', '--output', 'json', '-U', '-f', format, path], `look at ${path}`, options);
  const info = parse(infoSchema, text, 'info');
  return {
    path,
    format,
    virtualBytes: info['virtual-size'],
    actualBytes: info['actual-size'],
    isDirty: info['dirty-flag'],
    isCorrupt: info['format-specific']?.data.corrupt ?? false,
    snapshots: info.snapshots.map((one) => ({
      id: one.id,
      name: one.name,
      vmStateBytes: one['vm-state-size'],
      createdAtMs: one['date-sec'] * 1000 + Math.floor(one['date-nsec'] / 1e6),
    })),
  };
}

export async function qemuImgCreate(
  path: string,
  spec: {
    readonly format: DiskFormat;
    readonly virtualBytes: number | undefined;
    readonly base?: { readonly path: string; readonly format: DiskFormat } | undefined;
    readonly preallocation?: string | undefined;
  },
  options: CallOptions = {},
): Promise<void> {
  const { base, preallocation, virtualBytes } = spec;
  const args = [
    'create',
    '-q',
    ...['-f', spec.format],
    ...(base ? ['-b', base.path, '-F', base.format] : []),
    ...(preallocation ? ['-o', `preallocation=${preallocation}`] : []),
    path,
    ...(virtualBytes === undefined ? [] : [String(virtualBytes)]),
  ];
  await call(args, `create ${path}`, { ...NO_TIMEOUT, ...options });
}

export async function qemuImgResize(
  path: string,
  format: DiskFormat,
  spec: { readonly virtualBytes: number; readonly shrink: boolean },
  options: CallOptions = {},
): Promise<void> {
  const args = ['resize', '-q', '-f', format, ...(spec.shrink ? ['--shrink'] : []), path, String(spec.virtualBytes)];
  await call(args, `resize ${path}`, options);
}

export async function qemuImgConvert(
  source: { readonly path: string; readonly format: DiskFormat },
  target: { readonly path: string; readonly format: DiskFormat },
  spec: { readonly compress: boolean; readonly onProgress?: DiskProgress | undefined },
  options: CallOptions = {},
): Promise<void> {
  const args = [
    'convert',
    '-p',
    ...['-f', source.format, '-O', target.format],
    ...(spec.compress ? ['-c'] : []),
    source.path,
    target.path,
  ];
  await call(args, `convert ${source.path} to ${target.path}`, { ...withProgress(spec.onProgress), ...options });
}

const checkSchema = z.object({
  'check-errors': z.number(),
  corruptions: z.number().default(0),
  leaks: z.number().default(0),
  'corruptions-fixed': z.number().default(0),
  'leaks-fixed': z.number().default(0),
});

/** Exit codes 2 and 3 say that corruptions and leaks were found: the report has them. */
export async function qemuImgCheck(
  path: string,
  format: DiskFormat,
  repair: 'none' | 'leaks' | 'all',
  options: CallOptions = {},
): Promise<DiskCheck> {
  const args = ['check', '--output', 'json', '-f', format, ...(repair === 'none' ? [] : ['-r', repair]), path];
  const text = await call(args, `check ${path}`, { ...NO_TIMEOUT, acceptedExitCodes: [2, 3], ...options });
  const report = parse(checkSchema, text, 'check');
  return {
    path,
    corruptions: report.corruptions,
    leaks: report.leaks,
    corruptionsFixed: report['corruptions-fixed'],
    leaksFixed: report['leaks-fixed'],
    checkErrors: report['check-errors'],
  };
}

const SNAPSHOT_FLAGS = { create: '-c', restore: '-a', delete: '-d' } as const;

export async function qemuImgSnapshot(
  path: string,
  format: DiskFormat,
  action: keyof typeof SNAPSHOT_FLAGS,
  name: string,
  options: CallOptions = {},
): Promise<void> {
  const image = `driver=${format},file.driver=file,file.filename=${escapeOption(path)}`;
  const args = ['snapshot', '-q', '--image-opts', SNAPSHOT_FLAGS[action], name, image];
  await call(args, `${action} the snapshot ${name} of ${path}`, { ...NO_TIMEOUT, ...options });
}

export async function qemuImgRebase(
  path: string,
  format: DiskFormat,
  spec: {
    /** Undefined: the image stands on its own from then on. */
    readonly base: { readonly path: string; readonly format: DiskFormat } | undefined;
    readonly referenceOnly: boolean;
    readonly onProgress?: DiskProgress | undefined;
  },
  options: CallOptions = {},
): Promise<void> {
  const { base } = spec;
  const args = [
    'rebase',
    '-p',
    ...['-f', format],
    ...(spec.referenceOnly ? ['-u'] : []),
    ...(base ? ['-F', base.format, '-b', base.path] : ['-b', '']),
    path,
  ];
  await call(args, `rebase ${path}`, { ...withProgress(spec.onProgress), ...options });
}

export async function qemuImgCommit(
  path: string,
  format: DiskFormat,
  spec: { readonly onProgress?: DiskProgress | undefined },
  options: CallOptions = {},
): Promise<void> {
  await call(['commit', '-p', '-f', format, path], `commit ${path} to its base`, {
    ...withProgress(spec.onProgress),
    ...options,
  });
}

/** A comma ends an option's value; two stand for one. */
export function escapeOption(value: string): string {
  return value.replaceAll(',', ',,');
}

function withProgress(onProgress: DiskProgress | undefined): Partial<ProgramOptions> {
  if (!onProgress) return NO_TIMEOUT;
  // `    (12.34/100%)\r`
  const onOutput = (text: string): void => {
    const last = [...text.matchAll(/\((\d+\.\d+)\/100%\)/g)].at(-1)?.[1];
    if (last !== undefined) onProgress(Number(last));
  };
  return { ...NO_TIMEOUT, onOutput };
}

async function call(
  args: readonly string[],
  purpose: string,
  options: Omit<Partial<ProgramOptions>, 'signal'> & CallOptions,
): Promise<string> {
  const { signal, ...others } = options;
  try {
    return await runProgram('qemu-img', args, { purpose, ...others, ...(signal ? { signal } : {}) });
  } catch (error) {
    if (!(error instanceof EngineError) || error.code !== 'unavailable') throw error;
    throw new EngineError('unavailable', `${error.message}; install the package qemu-utils`, { cause: error });
  }
}

function parse<T>(schema: z.ZodType<T>, text: string, command: string): T {
  try {
    return schema.parse(JSON.parse(text));
  } catch (error) {
    throw new EngineError('internal', `qemu-img ${command} answered in a way that we do not understand`, {
      cause: error,
    });
  }
}
