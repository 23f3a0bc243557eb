import { constants } from 'node:fs';
import { open, realpath, type FileHandle } from 'node:fs/promises';
import { dirname, isAbsolute, join, resolve, sep } from 'node:path';
import { EngineError, systemErrorCode } from '../../core/errors.ts';
import { DISK_FORMATS, type DiskFormat } from '../../wire/guest-disk.ts';
import { detectFormat, HEADER_BYTES } from './image-format.ts';
import { readReferences, type ImageReference } from './image-references.ts';

/** An image whose every file has been looked at, itself first, and may be opened. */
export interface InspectedImage {
  /** Without symbolic links. */
  readonly path: string;
  readonly format: DiskFormat;
  /** Files of its own data beside it. */
  readonly dataPaths: readonly string[];
  readonly backing: InspectedImage | undefined;
}

export interface InspectOptions {
  /** Undefined finds it out by the image's mark. */
  readonly format?: DiskFormat | undefined;
  /** Directories that what an image refers to must lie in; its own directory is always one. */
  readonly allowedDirectories: readonly string[];
}

/** Longest chain that is followed. */
const MAXIMUM_CHAIN = 64;

/**
 * Reads an image's header, and the headers of all that it refers to, with plain file reads: no program that would follow a reference has
 * run before. Refused: anything but a regular file, a reference that leaves the allowed directories (also by symbolic link) or names
 * a protocol, a format that we do not take.
 */
export async function inspectImage(path: string, options: InspectOptions): Promise<InspectedImage> {
  const real = await realpathOf(path, path);
  const allowed = await Promise.all(
    [dirname(real), ...options.allowedDirectories].map((directory) => realpath(directory).catch(() => directory)),
  );
  return inspect(real, options.format, allowed, []);
}

/** The images of a chain, nearest first. */
export function chainOf(image: InspectedImage): InspectedImage[] {
  return image.backing ? [image, ...chainOf(image.backing)] : [image];
}

/** Every file of an image and its chain. */
export function filesOf(image: InspectedImage): string[] {
  return chainOf(image).flatMap((one) => [one.path, ...one.dataPaths]);
}

async function inspect(
  path: string,
  given: DiskFormat | undefined,
  allowed: readonly string[],
  above: readonly string[],
): Promise<InspectedImage> {
  if (above.includes(path)) throw refusal(path, 'its chain of backing files comes back to itself');
  if (above.length >= MAXIMUM_CHAIN) throw refusal(path, `its chain is longer than ${MAXIMUM_CHAIN} images`);
  await using file = await openRegular(path);
  const read = (offset: number, length: number): Promise<Buffer> => readAt(file, offset, length);
  const format = given ?? detect(path, await read(0, HEADER_BYTES));
  const dataPaths: string[] = [];
  let backing: InspectedImage | undefined;
  for (const reference of await readReferences(path, format, read)) {
    const target = await resolveReference(path, reference, allowed);
    if (reference.kind === 'backing file') {
      const format = formatOf(path, reference);
      backing = await inspect(target, format, allowed, [...above, path]);
    } else {
      // Opened to be sure that it is a file, and that an extent of VMDK's own sparse kind refers to nothing further.
      const inner = await inspect(target, reference.format === 'raw' ? 'raw' : undefined, allowed, [...above, path]);
      dataPaths.push(target, ...inner.dataPaths);
    }
  }
  return { path, format, dataPaths, backing };
}

function detect(path: string, header: Buffer): DiskFormat {
  const detected = detectFormat(header);
  if ('format' in detected) return detected.format;
  throw refusal(
    path,
    `its format (${detected.unsupported}) is not one of ${DISK_FORMATS.join(', ')}; convert it with the tool that made it`,
  );
}

function formatOf(path: string, reference: ImageReference): DiskFormat | undefined {
  if (reference.format === undefined) return undefined;
  const known = DISK_FORMATS.find((format) => format === reference.format);
  if (known) return known;
  throw refusal(path, `it names ${JSON.stringify(reference.format)} as the format of its backing file`);
}

async function resolveReference(path: string, reference: ImageReference, allowed: readonly string[]): Promise<string> {
  const { kind, name } = reference;
  const shown = JSON.stringify(name.length > 200 ? `${name.slice(0, 200)}…` : name);
  if (name === '' || name.includes('\0')) throw refusal(path, `its ${kind} has no usable name (${shown})`);
  // `nbd://`, `json:{…}`, `file:`: QEMU takes what is before the first colon for a protocol if no slash comes earlier.
  if (/^[^/]*:/.test(name)) throw refusal(path, `its ${kind} is ${shown}, which is not a plain file name`);
  const wanted = isAbsolute(name) ? name : join(dirname(path), name);
  const isInside = (candidate: string): boolean =>
    allowed.some((directory) => candidate.startsWith(directory.endsWith(sep) ? directory : directory + sep));
  // Looked at before the file system is asked: whether a file outside exists is told to nobody.
  if (!isInside(resolve(wanted)) && !isInside(await realpath(wanted).catch(() => ''))) throw outside(path, kind, shown);
  const real = await realpathOf(wanted, path, kind);
  if (!isInside(real)) throw outside(path, kind, shown);
  return real;
}

function outside(path: string, kind: string, shown: string): EngineError {
  return refusal(
    path,
    `its ${kind} is ${shown}, outside of its own directory; if you trust the image, allow that directory with --allow-path`,
  );
}

function refusal(path: string, why: string): EngineError {
  return new EngineError('forbidden', `${path} is refused: ${why}`, { details: { path } });
}

async function realpathOf(path: string, image: string, kind?: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') {
      const text =
        kind === undefined ? `there is no disk image ${path}` : `${image}: its ${kind} ${path} does not exist`;
      throw new EngineError('not-found', text, { cause: error });
    }
    throw new EngineError('forbidden', `cannot look at ${path}: ${systemErrorCode(error)}`, { cause: error });
  }
}

async function openRegular(path: string): Promise<FileHandle> {
  try {
    // Not blocking: opening a FIFO for reading would wait for its writer.
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
    if ((await file.stat()).isFile()) return file;
    await file.close();
  } catch (error) {
    throw new EngineError('forbidden', `cannot read ${path}: ${systemErrorCode(error) || String(error)}`, {
      cause: error,
    });
  }
  throw refusal(path, 'it is not a regular file');
}

async function readAt(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  if (!Number.isSafeInteger(offset)) return Buffer.alloc(0);
  const buffer = Buffer.alloc(length);
  const { bytesRead } = await file.read(buffer, 0, length, offset);
  return buffer.subarray(0, bytesRead);
}
