import { watch, type FSWatcher } from 'node:fs';
import { open, stat, type FileHandle } from 'node:fs/promises';
import { z } from 'zod';
import { systemErrorCode } from '../core/errors.ts';
import type { LogOptions } from './engine.ts';

const lineSchema = z.object({ log: z.string(), stream: z.enum(['stdout', 'stderr']), time: z.string() });

const CHUNK_BYTES = 64 * 1024;
const NEWLINE = 0x0a;

/** What the reader must know of the container that writes. */
export interface LogSource {
  readonly path: string;
  /** Rotated files that may exist: `path.1` … `path.<maxFiles - 1>`, the highest the oldest. */
  readonly maxFiles: number;
  readonly tty: boolean;
  /** Settles when the container will write no more for good. */
  readonly ended: Promise<void>;
}

/** A container's json-file log as the API wants it: Docker's frames, or plain bytes for a terminal. */
export async function* readLog(source: LogSource, options: LogOptions, signal: AbortSignal): AsyncGenerator<Buffer> {
  let isOver = false;
  let wake: () => void = () => undefined;
  const onEnd = (): void => {
    isOver = true;
    wake();
  };
  source.ended.then(onEnd, onEnd);
  signal.addEventListener('abort', () => wake(), { once: true });
  const start = await findStart(source, options.tail);
  for (const part of start.older) yield* filePart(part.path, part.offset, source, options);
  let file = await openLog(source.path);
  let watcher: FSWatcher | undefined;
  try {
    let offset = start.offset;
    let rest = Buffer.alloc(0);
    for (;;) {
      const wasOver = isOver;
      const chunk = file ? await readAt(file, offset) : Buffer.alloc(0);
      if (chunk.length > 0) {
        offset += chunk.length;
        const parsed = splitLines(Buffer.concat([rest, chunk]));
        rest = parsed.rest;
        const { frames, isPast } = renderLines(parsed.lines, source.tty, options);
        if (frames.length > 0) yield Buffer.concat(frames);
        if (isPast) return;
        continue;
      }
      if (signal.aborted || !options.follow || wasOver) return;
      const rotated = await isReplaced(file, source.path);
      if (rotated) {
        // Written to the old file between the last read and its replacement: read that first.
        if (file && (await file.stat()).size > offset) continue;
        await file?.close();
        file = await openLog(source.path);
        offset = 0;
        continue;
      }
      const changed = new Promise<void>((resolve) => {
        wake = resolve;
      });
      watcher ??= watchLog(source.path, () => wake());
      // Written between the last read and the watch: look once more before sleeping.
      if (file && (await file.stat()).size > offset) continue;
      if (isOver || signal.aborted) continue;
      await changed;
    }
  } finally {
    watcher?.close();
    await file?.close();
  }
}

/** A directory is watched, not the file: rotation replaces the file. */
function watchLog(path: string, onChange: () => void): FSWatcher {
  const watcher = watch(path.slice(0, path.lastIndexOf('/')), { persistent: false }, onChange);
  watcher.on('error', onChange);
  return watcher;
}

async function* filePart(path: string, offset: number, source: LogSource, options: LogOptions): AsyncGenerator<Buffer> {
  const file = await openLog(path);
  if (!file) return;
  try {
    let rest = Buffer.alloc(0);
    for (let at = offset; ;) {
      const chunk = await readAt(file, at);
      if (chunk.length === 0) return;
      at += chunk.length;
      const parsed = splitLines(Buffer.concat([rest, chunk]));
      rest = parsed.rest;
      const { frames, isPast } = renderLines(parsed.lines, source.tty, options);
      if (frames.length > 0) yield Buffer.concat(frames);
      if (isPast) return;
    }
  } finally {
    await file.close();
  }
}

/** Where the last `tail` lines begin: an offset in the newest file, and older files to be read before it. */
async function findStart(
  source: LogSource,
  tail: number | undefined,
): Promise<{ offset: number; older: { path: string; offset: number }[] }> {
  const paths = [
    source.path,
    ...Array.from({ length: Math.max(0, source.maxFiles - 1) }, (_, index) => `${source.path}.${index + 1}`),
  ];
  if (tail === undefined)
    return {
      offset: 0,
      older: paths
        .slice(1)
        .reverse()
        .map((path) => ({ path, offset: 0 })),
    };
  let wanted = tail;
  const starts: { path: string; offset: number }[] = [];
  for (const path of paths) {
    const file = await openLog(path);
    if (!file) break;
    try {
      const found = await findLastLines(file, wanted);
      starts.push({ path, offset: found.offset });
      wanted -= found.lines;
    } finally {
      await file.close();
    }
    if (wanted <= 0) break;
  }
  return { offset: starts[0]?.offset ?? 0, older: starts.slice(1).reverse() };
}

/** Offset at which the last `wanted` lines of the file begin, and how many there are, reading backwards. */
async function findLastLines(file: FileHandle, wanted: number): Promise<{ offset: number; lines: number }> {
  const { size } = await file.stat();
  if (wanted <= 0) return { offset: size, lines: 0 };
  let lines = 0;
  for (let end = size; end > 0; end -= CHUNK_BYTES) {
    const begin = Math.max(0, end - CHUNK_BYTES);
    const chunk = Buffer.alloc(end - begin);
    await file.read(chunk, 0, chunk.length, begin);
    for (let at = chunk.lastIndexOf(NEWLINE); at >= 0; at = at === 0 ? -1 : chunk.lastIndexOf(NEWLINE, at - 1)) {
      const isLast = begin + at === size - 1;
      if (isLast) continue;
      lines += 1;
      if (lines === wanted) return { offset: begin + at + 1, lines };
    }
  }
  return { offset: 0, lines: size > 0 ? lines + 1 : 0 };
}

async function openLog(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, 'r');
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

async function readAt(file: FileHandle, offset: number): Promise<Buffer> {
  const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
  const { bytesRead } = await file.read(chunk, 0, CHUNK_BYTES, offset);
  return chunk.subarray(0, bytesRead);
}

async function isReplaced(file: FileHandle | undefined, path: string): Promise<boolean> {
  const current = await stat(path).catch(() => undefined);
  if (!current) return false;
  return !file || (await file.stat()).ino !== current.ino;
}

function splitLines(data: Buffer): { lines: string[]; rest: Buffer<ArrayBuffer> } {
  const end = data.lastIndexOf(NEWLINE);
  const lines = end < 0 ? [] : data.subarray(0, end).toString('utf8').split('\n');
  return { lines, rest: Buffer.from(data.subarray(end + 1)) };
}

function renderLines(
  lines: readonly string[],
  tty: boolean,
  options: LogOptions,
): { frames: Buffer[]; isPast: boolean } {
  const frames: Buffer[] = [];
  for (const line of lines) {
    const entry = parseLine(line);
    if (!entry || (entry.stream === 'stdout' ? !options.stdout : !options.stderr)) continue;
    const needsTime = options.sinceNs !== undefined || options.untilNs !== undefined;
    const timeNs = needsTime ? parseTimeNs(entry.time) : 0n;
    if (options.sinceNs !== undefined && timeNs < options.sinceNs) continue;
    if (options.untilNs !== undefined && timeNs > options.untilNs) return { frames, isPast: true };
    const text = `${options.timestamps ? `${padTime(entry.time)} ` : ''}${options.details ? ' ' : ''}${entry.log}`;
    const payload = Buffer.from(text, 'utf8');
    if (!tty) frames.push(frameHeader(entry.stream === 'stdout' ? 1 : 2, payload.length));
    frames.push(payload);
  }
  return { frames, isPast: false };
}

/** Docker's multiplex header. Source: Engine API, "Stream format" of ContainerAttach. */
function frameHeader(stream: 1 | 2, lengthBytes: number): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt8(stream, 0);
  header.writeUInt32BE(lengthBytes, 4);
  return header;
}

function parseLine(line: string): z.infer<typeof lineSchema> | undefined {
  try {
    // A line cut short by a full disk is skipped, not the end of the log.
    return lineSchema.parse(JSON.parse(line));
  } catch {
    return undefined;
  }
}

/** `2026-01-02T03:04:05.6Z` with the nine digits that Docker prints. */
function padTime(time: string): string {
  const match = /^(.*?)(?:\.(\d+))?Z$/.exec(time);
  return match ? `${match[1]}.${(match[2] ?? '').padEnd(9, '0').slice(0, 9)}Z` : time;
}

export function parseTimeNs(time: string): bigint {
  const match = /^(\d+-\d+-\d+T\d+:\d+:\d+)(?:\.(\d+))?Z$/.exec(time);
  if (!match) return 0n;
  return BigInt(Date.parse(`${match[1]}Z`)) * 1_000_000n + BigInt((match[2] ?? '').padEnd(9, '0').slice(0, 9) || '0');
}
