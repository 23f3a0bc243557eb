import { setTimeout as sleep } from 'node:timers/promises';
import { EngineError } from '../../core/errors.ts';
import type { Descriptor } from '../../wire/oci/manifest.ts';
import type { BlobWriter } from '../blob-writer.ts';
import type { ContentStore } from '../content-store.ts';
import type { RetryPolicy } from './registry-client.ts';
import { connectionFailure, failureCode } from './registry-errors.ts';
import type { RegistrySession } from './session.ts';
import { discard, type IncomingResponse } from './transport.ts';

export interface BlobDownload {
  readonly session: RegistrySession;
  readonly store: ContentStore;
  readonly blob: Descriptor;
  readonly retry: RetryPolicy;
  readonly signal: AbortSignal;
  readonly onBytes?: (currentBytes: number) => void;
  readonly onVerifying?: () => void;
}

/** A connection must have brought this much for its failure not to count against the attempts. */
const PROGRESS_BYTES = 256 * 1024;
/** Whatever the progress: a server that drips a little per connection is given up. */
const MAX_CONNECTIONS = 200;

/** Content that is not what the manifest promised: another connection would bring the same. */
class WrongContent extends EngineError {}

/**
 * Fetches one blob into the store, hashing as it comes, resuming where a connection broke. Nothing is visible until size and digest
 * are right; on any failure the partial file is gone.
 */
export async function downloadBlob(download: BlobDownload): Promise<void> {
  const { store, blob, retry, signal } = download;
  await using writer = await store.createWriter();
  let failures = 0;
  for (let connection = 1; writer.bytes < blob.size || connection === 1; connection += 1) {
    const before = writer.bytes;
    try {
      await transferOnce(download, writer);
    } catch (error) {
      if (signal.aborted || !isTransient(error) || connection >= MAX_CONNECTIONS) throw error;
      failures = writer.bytes - before >= PROGRESS_BYTES ? 1 : failures + 1;
      if (failures >= retry.attempts) throw error;
      await sleep(Math.min(retry.firstDelayMs * 2 ** (failures - 1), retry.maxDelayMs), undefined, { signal });
    }
  }
  download.onVerifying?.();
  const { digest } = await writer.finish();
  if (digest !== blob.digest) {
    throw new WrongContent(
      'unavailable',
      `filesystem layer verification failed for digest ${blob.digest}: the registry sent ${digest}`,
      {
        details: { expected: blob.digest, digest },
      },
    );
  }
  signal.throwIfAborted();
  await store.adopt(writer, blob.digest);
}

function isTransient(error: unknown): boolean {
  if (!(error instanceof EngineError) || error instanceof WrongContent) return false;
  return error.code === 'unavailable';
}

async function transferOnce(download: BlobDownload, writer: BlobWriter): Promise<void> {
  const { session, blob, signal } = download;
  const response = await session.openBlob(blob.digest, writer.bytes, signal);
  if (response.status === 416) {
    await discard(response);
    await writer.restart();
    throw new EngineError('unavailable', `the registry refused to resume blob ${blob.digest}`);
  }
  if (writer.bytes > 0 && !continuesAt(response, writer.bytes)) await writer.restart();
  checkLength(response, blob, writer.bytes);
  try {
    for await (const chunk of response.body as AsyncIterable<Buffer>) {
      if (writer.bytes + chunk.length > blob.size) throw wrongSize(blob, writer.bytes + chunk.length);
      await writer.write(chunk);
      download.onBytes?.(writer.bytes);
    }
  } catch (error) {
    response.body.destroy();
    signal.throwIfAborted();
    if (error instanceof EngineError || failureCode(error) === '') throw error;
    throw connectionFailure('GET', response.url, error);
  }
  if (writer.bytes < blob.size) {
    throw new EngineError(
      'unavailable',
      `the registry ended blob ${blob.digest} after ${writer.bytes} of ${blob.size} bytes`,
    );
  }
}

/** `Content-Range: bytes 1024-…`: only the offset asked for may be appended. */
function continuesAt(response: IncomingResponse, offset: number): boolean {
  if (response.status !== 206) return false;
  const start = /^bytes (\d+)-/.exec(response.headers.get('content-range') ?? '')?.[1];
  if (Number(start) === offset) return true;
  throw new WrongContent(
    'unavailable',
    `the registry answered a request for bytes from ${offset} with others; its cache is broken`,
  );
}

function checkLength(response: IncomingResponse, blob: Descriptor, offset: number): void {
  const declared = response.headers.get('content-length');
  if (declared === undefined || Number(declared) + offset === blob.size) return;
  response.body.destroy();
  throw wrongSize(blob, Number(declared) + offset);
}

function wrongSize(blob: Descriptor, bytes: number): WrongContent {
  return new WrongContent(
    'unavailable',
    `blob ${blob.digest} has the wrong size: the manifest says ${blob.size} bytes, the registry sends ${bytes} or more`,
    { details: { digest: blob.digest, expectedBytes: blob.size, bytes } },
  );
}
