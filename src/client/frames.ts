import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';
import { EngineError } from '../core/errors.ts';

/** Bytes before each payload: `[stream, 0, 0, 0, length as big-endian 32 bits]`. Source: moby api/docs, ContainerAttach. */
const HEADER_BYTES = 8;

/** Stream numbers of a frame. */
const STREAM_STDIN = 0;
const STREAM_STDOUT = 1;
const STREAM_STDERR = 2;
const STREAM_SYSTEM_ERROR = 3;

/** Text of the daemon's own failure within a stream is kept up to here, bytes. */
const MAX_SYSTEM_ERROR_BYTES = 64 * 1024;

export interface FrameSinks {
  /** Undefined drops that stream. */
  readonly stdout: Writable | undefined;
  readonly stderr: Writable | undefined;
}

/**
 * Takes Docker's multiplexed stream apart. Payloads go on as slices of what was received: nothing is copied and no byte is looked at but the
 * headers. A sink that is full holds back the source. Resolves at the source's end; the sinks stay open.
 */
export async function demultiplex(source: Readable, sinks: FrameSinks): Promise<void> {
  const header = Buffer.alloc(HEADER_BYTES);
  let headerFill = 0;
  let remaining = 0;
  let stream = STREAM_STDOUT;
  let systemError = '';
  for await (const chunk of source as AsyncIterable<Buffer>) {
    let offset = 0;
    while (offset < chunk.length) {
      if (remaining === 0) {
        const taken = Math.min(HEADER_BYTES - headerFill, chunk.length - offset);
        chunk.copy(header, headerFill, offset, offset + taken);
        headerFill += taken;
        offset += taken;
        if (headerFill < HEADER_BYTES) break;
        headerFill = 0;
        stream = header.readUInt8(0);
        if (stream > STREAM_SYSTEM_ERROR)
          throw new EngineError('internal', `unrecognized stream ${stream} in the container's output`);
        remaining = header.readUInt32BE(4);
        continue;
      }
      const payload = chunk.subarray(offset, offset + remaining);
      offset += payload.length;
      remaining -= payload.length;
      if (stream === STREAM_SYSTEM_ERROR) {
        if (systemError.length < MAX_SYSTEM_ERROR_BYTES) systemError += payload.toString('utf8');
        continue;
      }
      const sink =
        stream === STREAM_STDERR
          ? sinks.stderr
          : stream === STREAM_STDIN || stream === STREAM_STDOUT
            ? sinks.stdout
            : undefined;
      if (sink !== undefined && !sink.write(payload)) await once(sink, 'drain');
    }
  }
  if (systemError !== '')
    throw new EngineError('internal', `error from the daemon in the stream: ${systemError.trim()}`);
  if (remaining > 0 || headerFill > 0)
    throw new EngineError('unavailable', "the container's output broke off in the middle of a frame");
}

/** A terminal's output: bytes as they are, with the same holding back. */
export async function relay(source: Readable, sink: Writable | undefined): Promise<void> {
  for await (const chunk of source as AsyncIterable<Buffer>) {
    if (sink !== undefined && !sink.write(chunk)) await once(sink, 'drain');
  }
}
