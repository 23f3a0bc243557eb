import { EngineError } from '../../core/errors.ts';
import type { DiskFormat } from '../../wire/guest-disk.ts';
import { isVmdkDescriptor } from './image-format.ts';

/** A file that an image names in itself. */
export interface ImageReference {
  readonly kind: 'backing file' | 'data file' | 'extent';
  /** As written in the image. */
  readonly name: string;
  /** As the image says; undefined where it leaves that to a guess. */
  readonly format?: string;
}

/** Longest name in a header that we believe, bytes. QEMU's own limit for backing files is 1023. */
const MAXIMUM_NAME_BYTES = 4096;
/** A VMDK's descriptor within a sparse file, bytes; VMware writes 20 sectors. */
const MAXIMUM_DESCRIPTOR_BYTES = 1024 * 1024;
const MAXIMUM_EXTENTS = 1024;

/** Reads `length` bytes at `offset` of the image; fewer at its end. */
export type ReadAt = (offset: number, length: number) => Promise<Buffer>;

/** The files that an image names, read from its own header: no program opens the image before these have been looked at. */
export async function readReferences(path: string, format: DiskFormat, read: ReadAt): Promise<ImageReference[]> {
  switch (format) {
    case 'qcow2':
      return qcow2References(path, await read(0, 64 * 1024), read);
    case 'vmdk':
      return vmdkReferences(path, read);
    case 'vpc':
      return vpcReferences(path, await read(0, 512), read);
    case 'raw':
    case 'vdi':
    case 'vhdx':
      // Their differencing kinds are refused by QEMU itself, which resolves no names in them.
      return [];
  }
}

function broken(path: string, what: string): EngineError {
  return new EngineError('invalid-argument', `${path} is no usable image: ${what}; get a fresh copy of it`);
}

/** Source: QEMU docs/interop/qcow2.txt. */
async function qcow2References(path: string, header: Buffer, read: ReadAt): Promise<ImageReference[]> {
  if (header.length < 72) throw broken(path, 'its qcow2 header is cut off');
  const version = header.readUInt32BE(4);
  const backingOffset = Number(header.readBigUInt64BE(8));
  const backingLength = header.readUInt32BE(16);
  const headerLength = version >= 3 && header.length >= 104 ? header.readUInt32BE(100) : 72;
  const incompatible = version >= 3 && header.length >= 80 ? header.readBigUInt64BE(72) : 0n;
  const extensions = await readExtensions(path, headerLength, backingOffset, read);
  const references: ImageReference[] = [];
  if (backingOffset !== 0) {
    if (backingLength > MAXIMUM_NAME_BYTES) throw broken(path, 'the name of its backing file is too long');
    const name = (await read(backingOffset, backingLength)).toString('utf8');
    const format = extensions.get(0xe2792aca);
    references.push({ kind: 'backing file', name, ...(format === undefined ? {} : { format }) });
  }
  const dataFile = extensions.get(0x44415441);
  const hasDataFile = (incompatible & 4n) !== 0n;
  // QEMU also takes the name from the extension when the bit is set only; a name without the bit is looked at all the same.
  if (hasDataFile || dataFile !== undefined)
    references.push({ kind: 'data file', name: dataFile ?? '', format: 'raw' });
  return references;
}

async function readExtensions(
  path: string,
  start: number,
  backingOffset: number,
  read: ReadAt,
): Promise<Map<number, string>> {
  const found = new Map<number, string>();
  // Extensions lie in the first cluster, before the backing file's name; a cluster is at most 2 MiB.
  const end = backingOffset > start && backingOffset <= 2 * 1024 ** 2 ? backingOffset : 2 * 1024 ** 2;
  for (let offset = start; offset + 8 <= end;) {
    const head = await read(offset, 8);
    if (head.length < 8) return found;
    const type = head.readUInt32BE(0);
    const length = head.readUInt32BE(4);
    if (type === 0) return found;
    if (length > end - offset - 8) throw broken(path, 'a qcow2 header extension is longer than the header');
    if (type === 0xe2792aca || type === 0x44415441) {
      if (length > MAXIMUM_NAME_BYTES) throw broken(path, 'a name in its qcow2 header is too long');
      found.set(type, (await read(offset + 8, length)).toString('utf8'));
    }
    offset += 8 + Math.ceil(length / 8) * 8;
  }
  return found;
}

/** Where QEMU looks for the parent's name in a sparse file, whatever the header says (block/vmdk.c, vmdk_open). */
const PARENT_DESCRIPTOR_OFFSET = 512;

/** Source: VMware "Virtual Disk Format 5.0"; QEMU block/vmdk.c. */
async function vmdkReferences(path: string, read: ReadAt): Promise<ImageReference[]> {
  const header = await read(0, 4096);
  if (isVmdkDescriptor(header)) {
    const text = asText(await read(0, MAXIMUM_DESCRIPTOR_BYTES));
    return [...parentReferences(text), ...extentReferences(path, text)];
  }
  if (header.length < 512) throw broken(path, 'its VMDK header is cut off');
  const parents = parentReferences((await read(PARENT_DESCRIPTOR_OFFSET, 64 * 1024)).toString('latin1'));
  // A sparse file without a capacity is read as a descriptor with extents; in any other its descriptor only describes itself.
  const descriptorOffset = Number(header.readBigUInt64LE(28)) * 512;
  if (header.readBigUInt64LE(12) !== 0n || descriptorOffset === 0) return parents;
  const text = asText(await read(descriptorOffset, MAXIMUM_DESCRIPTOR_BYTES));
  return [...parents, ...parentReferences(text), ...extentReferences(path, text)];
}

const asText = (bytes: Buffer): string => bytes.toString('utf8').split('\0', 1)[0] ?? '';

function parentReferences(text: string): ImageReference[] {
  return [...text.matchAll(/parentFileNameHint\s*=?\s*"?([^"\r\n\0]*)/g)].map(([, name = '']) => ({
    kind: 'backing file',
    name,
    format: 'vmdk',
  }));
}

/** `RW 20480 FLAT "name" 0`. Read more leniently than QEMU does: what it might open must not be missed. */
function extentReferences(path: string, text: string): ImageReference[] {
  const references = text.split(/[\r\n]/).flatMap((line): ImageReference[] => {
    const [, before, name] = /^\s*((?:RW|RDONLY|NOACCESS)[^"]*)"([^"]*)/.exec(line) ?? [];
    if (before === undefined || name === undefined) return [];
    return [{ kind: 'extent', name, format: /FLAT|VMFS(?!SPARSE)/.test(before) ? 'raw' : 'vmdk' }];
  });
  if (references.length > MAXIMUM_EXTENTS) throw broken(path, `it has more than ${MAXIMUM_EXTENTS} extents`);
  return references;
}

/** A differencing VHD names its parent; QEMU does not open parents, and would show half a disk. */
async function vpcReferences(path: string, header: Buffer, read: ReadAt): Promise<ImageReference[]> {
  const footer = header.toString('latin1', 0, 8) === 'conectix' ? header : await read(0, 512);
  if (footer.length >= 64 && footer.readUInt32BE(60) === 4) {
    throw broken(path, 'it is a differencing VHD, whose parent cannot be opened; merge it into its parent first');
  }
  return [];
}
