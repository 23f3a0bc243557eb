import type { IncomingHttpHeaders } from 'node:http';
import type { Duplex } from 'node:stream';
import { EngineError } from '../core/errors.ts';

/** Bodies of requests to hijack are small JSON. */
const LIMIT_BYTES = 1024 * 1024;

interface Decoded {
  readonly body: Buffer;
  readonly rest: Buffer;
}

/**
 * The body of a request with an `Upgrade` header. Node stops parsing after the headers, so the body comes in `head` and in what the
 * connection yields next; what follows it is the client's stdin and is put back.
 */
export async function readUpgradeBody(connection: Duplex, head: Buffer, headers: IncomingHttpHeaders): Promise<Buffer> {
  const decode = chooseDecoder(headers);
  let received = head;
  for (;;) {
    const decoded = decode(received);
    if (decoded !== undefined) {
      if (decoded.rest.length > 0) connection.unshift(decoded.rest);
      return decoded.body;
    }
    if (received.length > LIMIT_BYTES) throw tooLarge();
    received = Buffer.concat([received, await nextBytes(connection)]);
  }
}

function tooLarge(): EngineError {
  return new EngineError('limit-exceeded', `request body is larger than ${LIMIT_BYTES} bytes`);
}

function chooseDecoder(headers: IncomingHttpHeaders): (received: Buffer) => Decoded | undefined {
  if ((headers['transfer-encoding'] ?? '').toLowerCase().includes('chunked')) return decodeChunks;
  const lengthBytes = Number(headers['content-length'] ?? 0);
  if (!Number.isSafeInteger(lengthBytes) || lengthBytes > LIMIT_BYTES) throw tooLarge();
  return (received) =>
    received.length < lengthBytes
      ? undefined
      : { body: received.subarray(0, lengthBytes), rest: received.subarray(lengthBytes) };
}

/** RFC 9112, section 7.1. Undefined while chunks are missing. */
function decodeChunks(received: Buffer): Decoded | undefined {
  const parts: Buffer[] = [];
  let offset = 0;
  for (;;) {
    const lineEnd = received.indexOf('\r\n', offset);
    if (lineEnd < 0) return undefined;
    const sizeText = (received.toString('latin1', offset, lineEnd).split(';', 1)[0] ?? '').trim();
    if (!/^[0-9a-fA-F]{1,8}$/.test(sizeText)) {
      throw new EngineError('invalid-argument', 'request body has a malformed chunk size');
    }
    const sizeBytes = Number.parseInt(sizeText, 16);
    offset = lineEnd + 2;
    if (sizeBytes > LIMIT_BYTES) throw tooLarge();
    if (received.length < offset + sizeBytes + 2) return undefined;
    if (sizeBytes === 0) return { body: Buffer.concat(parts), rest: received.subarray(offset + 2) };
    parts.push(received.subarray(offset, offset + sizeBytes));
    offset += sizeBytes + 2;
  }
}

function nextBytes(connection: Duplex): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const settle = (): void => {
      const chunk = connection.read() as Buffer | null;
      if (chunk === null && !connection.readableEnded && !connection.destroyed) return;
      connection.off('readable', settle).off('end', settle).off('close', settle);
      if (chunk !== null) resolve(chunk);
      else reject(new EngineError('invalid-argument', 'the connection ended before the request body did'));
    };
    connection.on('readable', settle).on('end', settle).on('close', settle);
    settle();
  });
}
