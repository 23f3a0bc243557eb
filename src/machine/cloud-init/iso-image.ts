import { EngineError } from '../../core/errors.ts';

/*
 * A small ISO 9660 image with Joliet names: what a NoCloud seed needs, and no more. One directory, files in memory, no Rock Ridge.
 * Sources: ECMA-119 (ISO 9660), whose clauses are named below; "Joliet Specification", Microsoft 1995.
 */

export interface IsoFile {
  /** As the guest sees it (Joliet): up to 64 characters, no `/ \ : ; * ?`. */
  readonly name: string;
  readonly content: Buffer;
}

export interface IsoSpec {
  /** 1 to 16 characters: Joliet has room for no more. */
  readonly volumeId: string;
  readonly files: readonly IsoFile[];
  readonly createdAt: Date;
}

const SECTOR_BYTES = 2048;
/** 16 unused sectors, three descriptors, two path tables of each kind, the two root directories. */
const PRIMARY_TABLES = 19;
const JOLIET_TABLES = 21;
const PRIMARY_ROOT = 23;
const JOLIET_ROOT = 24;
const FIRST_FILE = 25;
/** A seed is text. */
const MAXIMUM_BYTES = 64 * 1024 * 1024;

export function buildIsoImage(spec: IsoSpec): Buffer {
  const files = placeFiles(spec.files);
  const sectors = files.reduce((end, file) => Math.max(end, file.sector + sectorsOf(file.content.length)), FIRST_FILE);
  if (sectors * SECTOR_BYTES > MAXIMUM_BYTES) {
    throw new EngineError('limit-exceeded', `the files of ${spec.volumeId} are larger than ${MAXIMUM_BYTES} bytes`);
  }
  if (!/^[\x20-\x7e]{1,16}$/.test(spec.volumeId)) {
    throw new EngineError('invalid-argument', `${JSON.stringify(spec.volumeId)} is no volume id of 1 to 16 characters`);
  }
  const image = Buffer.alloc(sectors * SECTOR_BYTES);
  const at = (sector: number): Buffer => image.subarray(sector * SECTOR_BYTES);
  writeDescriptor(at(16), spec, sectors, PRIMARY);
  writeDescriptor(at(17), spec, sectors, JOLIET);
  // Set terminator, 8.3.
  at(18).write('\xffCD001\x01', 'latin1');
  for (const [kind, tables, root] of [
    [PRIMARY, PRIMARY_TABLES, PRIMARY_ROOT],
    [JOLIET, JOLIET_TABLES, JOLIET_ROOT],
  ] as const) {
    writePathTable(at(tables), root, 'LE');
    writePathTable(at(tables + 1), root, 'BE');
    writeDirectory(at(root), files, kind, root, spec.createdAt);
  }
  for (const file of files) file.content.copy(at(file.sector));
  return image;
}

interface Kind {
  readonly type: number;
  readonly tables: number;
  readonly root: number;
  readonly escape: string;
  encode(text: string): Buffer;
  nameOf(file: PlacedFile): Buffer;
}

interface PlacedFile extends IsoFile {
  readonly sector: number;
  readonly shortName: string;
}

const PRIMARY: Kind = {
  type: 1,
  tables: PRIMARY_TABLES,
  root: PRIMARY_ROOT,
  escape: '',
  encode: (text) => Buffer.from(text, 'latin1'),
  nameOf: ({ shortName }) => Buffer.from(shortName, 'latin1'),
};

const JOLIET: Kind = {
  type: 2,
  tables: JOLIET_TABLES,
  root: JOLIET_ROOT,
  // UCS-2 level 3.
  escape: '%/E',
  encode: (text) => Buffer.from(text, 'utf16le').swap16(),
  nameOf: ({ name }) => Buffer.from(name, 'utf16le').swap16(),
};

function placeFiles(files: readonly IsoFile[]): PlacedFile[] {
  let sector = FIRST_FILE;
  const names = new Set(files.map(({ name }) => name));
  const bad = files.find(({ name }) => !/^[^/\\:;*?\0]{1,64}$/.test(name));
  if (bad || names.size !== files.length || files.length > 16) {
    throw new EngineError(
      'invalid-argument',
      `${JSON.stringify(bad?.name ?? 'a name given twice')} cannot be in a seed`,
    );
  }
  // Joliet wants its records sorted; the primary tree, whose short names are numbered, is then sorted too. 9.3.
  const sorted = [...files].sort((left, right) => (left.name < right.name ? -1 : 1));
  return sorted.map((file, index) => {
    const placed = { ...file, sector, shortName: `FILE${String(index).padStart(4, '0')}.;1` };
    sector += sectorsOf(file.content.length);
    return placed;
  });
}

function sectorsOf(bytes: number): number {
  return Math.max(1, Math.ceil(bytes / SECTOR_BYTES));
}

/** Volume descriptor, 8.4 and 8.5. Numbers stand in both byte orders. */
function writeDescriptor(target: Buffer, spec: IsoSpec, sectors: number, kind: Kind): void {
  target.writeUInt8(kind.type, 0);
  target.write('CD001', 1, 'latin1');
  target.writeUInt8(1, 6);
  const text = (offset: number, length: number, value: string): void => {
    const blank = kind.encode(' '.repeat(length));
    blank.copy(target, offset, 0, length);
    kind.encode(value).copy(target, offset, 0, length);
  };
  text(8, 32, '');
  text(40, 32, spec.volumeId);
  bothEndian32(target, 80, sectors);
  target.write(kind.escape, 88, 'latin1');
  bothEndian16(target, 120, 1);
  bothEndian16(target, 124, 1);
  bothEndian16(target, 128, SECTOR_BYTES);
  bothEndian32(target, 132, 10);
  target.writeUInt32LE(kind.tables, 140);
  target.writeUInt32BE(kind.tables + 1, 148);
  writeRecord(target.subarray(156), Buffer.from([0]), kind.root, SECTOR_BYTES, spec.createdAt, true);
  for (const [offset, length] of [
    [190, 128],
    [318, 128],
    [446, 128],
    [574, 128],
    [702, 37],
    [739, 37],
    [776, 37],
  ] as const) {
    text(offset, length, '');
  }
  const stamp = `${spec.createdAt.toISOString().replaceAll(/\D/g, '').slice(0, 16)}\0`;
  for (const offset of [813, 830]) target.write(stamp, offset, 'latin1');
  // "No expiry, no effective date": digits of zero. 8.4.26.1.
  for (const offset of [847, 864]) target.write(`${'0'.repeat(16)}\0`, offset, 'latin1');
  target.writeUInt8(1, 881);
}

/** The root is the only directory, its own parent. 9.4. */
function writePathTable(target: Buffer, root: number, order: 'LE' | 'BE'): void {
  target.writeUInt8(1, 0);
  if (order === 'LE') {
    target.writeUInt32LE(root, 2);
    target.writeUInt16LE(1, 6);
  } else {
    target.writeUInt32BE(root, 2);
    target.writeUInt16BE(1, 6);
  }
}

function writeDirectory(target: Buffer, files: readonly PlacedFile[], kind: Kind, root: number, date: Date): void {
  let offset = 0;
  const add = (name: Buffer, sector: number, length: number, isDirectory: boolean): void => {
    offset += writeRecord(target.subarray(offset), name, sector, length, date, isDirectory);
  };
  // Itself and its parent have the names 0 and 1. 6.8.2.2. Sixteen records of at most 162 bytes would not fit one sector: ours do.
  add(Buffer.from([0]), root, SECTOR_BYTES, true);
  add(Buffer.from([1]), root, SECTOR_BYTES, true);
  for (const file of files) {
    const name = kind.nameOf(file);
    if (offset + recordBytes(name) > SECTOR_BYTES) {
      throw new EngineError('limit-exceeded', 'the names of the seed files are too long for one directory sector');
    }
    add(name, file.sector, file.content.length, false);
  }
}

function recordBytes(name: Buffer): number {
  return 33 + name.length + (name.length % 2 === 0 ? 1 : 0);
}

/** Directory record, 9.1; returns its length. */
function writeRecord(
  target: Buffer,
  name: Buffer,
  sector: number,
  length: number,
  date: Date,
  isDirectory: boolean,
): number {
  target.writeUInt8(recordBytes(name), 0);
  bothEndian32(target, 2, sector);
  bothEndian32(target, 10, length);
  // UTC: offset 0.
  const fields = [
    date.getUTCFullYear() - 1900,
    date.getUTCMonth() + 1,
    date.getUTCDate(),
    date.getUTCHours(),
    date.getUTCMinutes(),
    date.getUTCSeconds(),
    0,
  ];
  Buffer.from(fields).copy(target, 18);
  target.writeUInt8(isDirectory ? 2 : 0, 25);
  bothEndian16(target, 28, 1);
  target.writeUInt8(name.length, 32);
  name.copy(target, 33);
  return recordBytes(name);
}

function bothEndian16(target: Buffer, offset: number, value: number): void {
  target.writeUInt16LE(value, offset);
  target.writeUInt16BE(value, offset + 2);
}

function bothEndian32(target: Buffer, offset: number, value: number): void {
  target.writeUInt32LE(value, offset);
  target.writeUInt32BE(value, offset + 4);
}
