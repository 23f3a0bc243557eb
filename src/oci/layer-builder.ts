import { open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { z } from 'zod';
import type { Digest } from '../core/digest.ts';
import { EngineError, type ErrorCode } from '../core/errors.ts';
import { runChild } from '../platform/child-process.ts';
import { digestSchema } from '../wire/oci/manifest.ts';

export interface LayerBuildRequest {
  /** The blob as pulled: plain, gzip or zstd tar. */
  readonly blobPath: string;
  readonly outputPath: string;
  readonly expectDigest?: Digest;
  readonly expectDiffId?: Digest;
  readonly limits: LayerLimits;
  readonly signal?: AbortSignal;
}

/** What one layer may unpack to; the image comes from strangers. */
export interface LayerLimits {
  readonly maxBytes: number;
  readonly maxEntries: number;
  readonly maxCompressedBytes: number;
}

export interface BuiltLayer {
  readonly digest: Digest;
  readonly diffId: Digest;
  readonly compressedBytes: number;
  readonly uncompressedBytes: number;
  readonly imageBytes: number;
}

/** Turns a layer blob into the read-only file system both walls mount. */
export interface LayerBuilder {
  build(request: LayerBuildRequest): Promise<BuiltLayer>;
}

export const defaultLayerLimits: LayerLimits = {
  maxBytes: 64 * 1024 ** 3,
  maxEntries: 4_000_000,
  maxCompressedBytes: 32 * 1024 ** 3,
};

const byteCount = z.number().int().nonnegative();
const successSchema = z.object({
  digest: digestSchema,
  diffId: digestSchema,
  compressedBytes: byteCount,
  uncompressedBytes: byteCount,
  imageBytes: byteCount,
});
const failureSchema = z.object({ code: z.string(), message: z.string() });

/** The program `bulkhead-layer`, one process per layer: a hostile tar can at worst end that process. */
export class ProcessLayerBuilder implements LayerBuilder {
  readonly #program: string;

  constructor(program: string) {
    this.#program = program;
  }

  async build(request: LayerBuildRequest): Promise<BuiltLayer> {
    const { expectDigest, expectDiffId, limits, signal } = request;
    const blob = await open(request.blobPath, 'r');
    try {
      const outcome = await runChild({
        command: this.#program,
        args: [
          'build',
          ...['--output', request.outputPath],
          ...(expectDigest ? ['--expect-digest', expectDigest] : []),
          ...(expectDiffId ? ['--expect-diff-id', expectDiffId] : []),
          ...['--max-bytes', String(limits.maxBytes)],
          ...['--max-entries', String(limits.maxEntries)],
          ...['--max-compressed-bytes', String(limits.maxCompressedBytes)],
        ],
        stdin: blob.fd,
        ...(signal && { signal }),
      });
      if (outcome.exitCode !== 0) throw explainFailure(outcome.stderr, outcome.exitCode, request);
      return successSchema.parse(JSON.parse(outcome.stdout));
    } finally {
      await blob.close();
    }
  }
}

/** The program's failure codes that have a meaning of their own here; the rest say that the image is broken. */
const CODES: Readonly<Record<string, ErrorCode>> = {
  'no-space': 'resource-exhausted',
  'limit-exceeded': 'limit-exceeded',
  'unsupported-compression': 'unsupported',
  io: 'internal',
};

function explainFailure(
  stderr: string,
  exitCode: number | undefined,
  { expectDigest, outputPath }: LayerBuildRequest,
): EngineError {
  const subject = expectDigest ? `layer ${expectDigest}` : 'layer';
  const failure = parseFailure(stderr.trimEnd().split('\n').at(-1) ?? '');
  if (!failure) {
    const ending = exitCode === undefined ? 'was killed' : `ended with code ${exitCode}`;
    return new EngineError('internal', `${subject} could not be unpacked: the layer builder ${ending}`, {
      details: { stderr },
    });
  }
  const code = CODES[failure.code] ?? 'invalid-argument';
  const details = { builderCode: failure.code };
  if (code === 'resource-exhausted') {
    const place = dirname(outputPath);
    return new EngineError(
      code,
      `no space left in ${place} to unpack ${subject}; remove images or move the data root`,
      { details },
    );
  }
  return new EngineError(code, `${subject} could not be unpacked: ${failure.message}`, { details });
}

function parseFailure(line: string): z.infer<typeof failureSchema> | undefined {
  try {
    return failureSchema.parse(JSON.parse(line));
  } catch {
    return undefined;
  }
}
