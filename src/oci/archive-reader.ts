import { posix } from 'node:path';
import { pipeline, Readable } from 'node:stream';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { extract, type Extract, type Header } from 'tar-stream';
import type { Digest } from '../core/digest.ts';
import { EngineError } from '../core/errors.ts';
import type { ContentStore } from './content-store.ts';

type TarEntry = AsyncIterable<unknown> & { readonly header: Header; resume(): unknown };

export interface ArchiveMember {
  readonly digest: Digest;
  readonly sizeBytes: number;
}

export interface ArchiveLimits {
  readonly maxEntries: number;
  /** Of the uncompressed archive. */
  readonly maxBytes: number;
}

export const defaultArchiveLimits: ArchiveLimits = { maxEntries: 100_000, maxBytes: 256 * 1024 ** 3 };

const MAX_LINK_DEPTH = 8;

/** The members of an archive, each already in the content store under its digest. Names are only ever keys of a map, never paths. */
export class ArchiveMembers {
  readonly #files = new Map<string, ArchiveMember>();
  readonly #links = new Map<string, string>();

  get size(): number {
    return this.#files.size + this.#links.size;
  }

  digests(): Digest[] {
    return [...this.#files.values()].map(({ digest }) => digest);
  }

  addFile(path: string, member: ArchiveMember): void {
    const known = this.#files.get(path);
    if (this.#links.has(path) || (known && known.digest !== member.digest))
      throw badArchive(`it has two different members named "${path}"`);
    this.#files.set(path, member);
  }

  /** Old `docker save` wrote a layer that several images share as a link. */
  addLink(path: string, target: string): void {
    if (this.#files.has(path) || this.#links.has(path))
      throw badArchive(`it has two different members named "${path}"`);
    this.#links.set(path, target);
  }

  find(path: string): ArchiveMember | undefined {
    let current = normaliseMember(path);
    for (let depth = 0; depth < MAX_LINK_DEPTH; depth += 1) {
      const file = this.#files.get(current);
      if (file) return file;
      const target = this.#links.get(current);
      if (target === undefined) return undefined;
      current = target;
    }
    throw badArchive(`its link "${path}" leads nowhere`);
  }

  require(path: string, purpose: string): ArchiveMember {
    const member = this.find(path);
    if (!member) throw badArchive(`it lacks "${path}", ${purpose}`);
    return member;
  }
}

export function badArchive(reason: string, cause?: unknown): EngineError {
  return new EngineError(
    'invalid-argument',
    `the image archive is not usable: ${reason}`,
    cause === undefined ? {} : { cause },
  );
}

/**
 * Reads a tar (plain, gzip or zstd) to its end, every file straight to disk. `hold` is told each digest before the file becomes visible,
 * so that no sweep takes it.
 */
export async function readArchive(
  source: Readable,
  contents: ContentStore,
  hold: (digest: Digest) => void,
  { limits = defaultArchiveLimits, signal }: { limits?: ArchiveLimits; signal?: AbortSignal | undefined } = {},
): Promise<ArchiveMembers> {
  const members = new ArchiveMembers();
  const reader = extract();
  // Extended headers are gathered in memory by the reader, which bounds them itself (tar-stream 3.2: MAX_HEADER_SIZE).
  const pumping = pump(source, reader, limits, signal);
  pumping.catch((error: unknown) => reader.destroy(error instanceof Error ? error : new Error(String(error))));
  try {
    for await (const entry of reader) {
      if (members.size >= limits.maxEntries) throw badArchive(`it has more than ${limits.maxEntries} members`);
      await readEntry(entry, members, contents, hold);
    }
    await pumping;
    return members;
  } catch (error) {
    source.destroy();
    reader.destroy();
    await pumping.catch(() => undefined);
    signal?.throwIfAborted();
    if (error instanceof EngineError) throw error;
    throw badArchive(error instanceof Error ? error.message : String(error), error);
  }
}

async function readEntry(
  entry: TarEntry,
  members: ArchiveMembers,
  contents: ContentStore,
  hold: (digest: Digest) => void,
): Promise<void> {
  const { type, name, linkname } = entry.header;
  if (type === 'directory') {
    entry.resume();
    return;
  }
  const path = normaliseMember(name);
  if (type === 'symlink' || type === 'link') {
    const base = type === 'symlink' ? posix.dirname(path) : '.';
    if ((linkname ?? '').startsWith('/')) throw badArchive(`its link "${path}" leaves the archive`);
    members.addLink(path, normaliseMember(posix.join(base, linkname ?? '')));
    entry.resume();
    return;
  }
  if (type !== 'file') throw badArchive(`its member "${path}" is a ${type}, not a file`);
  await using writer = await contents.createWriter();
  for await (const chunk of entry as AsyncIterable<Buffer>) await writer.write(chunk);
  const { digest, bytes } = await writer.finish();
  hold(digest);
  if (!(await contents.has(digest))) await contents.adopt(writer, digest);
  members.addFile(path, { digest, sizeBytes: bytes });
}

function normaliseMember(name: string): string {
  const shown = name.length > 200 ? `${name.slice(0, 200)}…` : name;
  if (name.startsWith('/') || name.includes('\0'))
    throw badArchive(`its member "${shown}" has an absolute or invalid name`);
  const path = posix.normalize(name);
  if (path === '..' || path.startsWith('../')) throw badArchive(`its member "${shown}" leaves the archive`);
  return path;
}

async function pump(
  source: Readable,
  reader: Extract,
  limits: ArchiveLimits,
  signal: AbortSignal | undefined,
): Promise<void> {
  let total = 0;
  for await (const chunk of decompress(source)) {
    signal?.throwIfAborted();
    total += chunk.length;
    if (total > limits.maxBytes) throw badArchive(`it unpacks to more than ${limits.maxBytes} bytes`);
    if (reader.destroyed) return;
    if (!reader.write(chunk)) await drained(reader);
  }
  reader.end(undefined);
}

function drained(reader: Extract): Promise<void> {
  return new Promise((resolve) => {
    const proceed = (): void => {
      reader.off('drain', proceed);
      reader.off('close', proceed);
      resolve();
    };
    reader.on('drain', proceed);
    reader.on('close', proceed);
  });
}

async function* decompress(source: Readable): AsyncGenerator<Buffer> {
  const iterator = source[Symbol.asyncIterator]() as AsyncIterableIterator<Buffer, undefined>;
  let head: Buffer = Buffer.alloc(0);
  while (head.length < 6) {
    const next = await iterator.next();
    if (next.done) break;
    head = Buffer.concat([head, next.value]);
  }
  const whole = Readable.from(prefixed(head, iterator), { objectMode: false });
  const decompressor = decompressorFor(head);
  if (!decompressor) {
    yield* whole as AsyncIterable<Buffer>;
    return;
  }
  // Its failure reaches the reader of the decompressor.
  pipeline(whole, decompressor, () => undefined);
  yield* decompressor as AsyncIterable<Buffer>;
}

async function* prefixed(head: Buffer, rest: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  if (head.length > 0) yield head;
  yield* rest;
}

function decompressorFor(
  head: Buffer,
): ReturnType<typeof createGunzip> | ReturnType<typeof createZstdDecompress> | undefined {
  const starts = (...bytes: number[]): boolean => bytes.every((byte, position) => head[position] === byte);
  if (starts(0x1f, 0x8b)) return createGunzip();
  if (starts(0x28, 0xb5, 0x2f, 0xfd)) return createZstdDecompress();
  if (starts(0x42, 0x5a, 0x68)) throw badArchive('it is compressed with bzip2; decompress it, or use gzip or zstd');
  if (starts(0xfd, 0x37, 0x7a, 0x58, 0x5a))
    throw badArchive('it is compressed with xz; decompress it, or use gzip or zstd');
  return undefined;
}
