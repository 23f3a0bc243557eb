import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream, existsSync } from 'node:fs';
import { mkdtemp, open, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, type Duplex } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { digestFromHex } from '../../src/core/digest.ts';
import { EngineError } from '../../src/core/errors.ts';
import {
  ProcessLayerBuilder,
  type BuiltLayer,
  type LayerBuilder,
  type LayerBuildRequest,
} from '../../src/oci/layer-builder.ts';
import { runChild } from '../../src/platform/child-process.ts';

const program = ['release', 'debug']
  .map((profile) => new URL(`../../native/target/${profile}/bulkhead-layer`, import.meta.url).pathname)
  .find((path) => existsSync(path));

export const realLayerBuilder: LayerBuilder | undefined =
  program === undefined ? undefined : new ProcessLayerBuilder(program);

/** The program of this project; where it is not built, the distribution's mkfs.erofs on an extracted tree (no whiteouts needed here). */
export function createLayerBuilder(): LayerBuilder {
  return realLayerBuilder ?? { build: buildWithMkfs };
}

async function buildWithMkfs(request: LayerBuildRequest): Promise<BuiltLayer> {
  const directory = await mkdtemp(join(tmpdir(), 'bulkhead-layer-'));
  try {
    const tar = join(directory, 'layer.tar');
    const blob = await open(request.blobPath, 'r');
    const { buffer } = await blob.read(Buffer.alloc(4), 0, 4, 0);
    await blob.close();
    await pipeline(createReadStream(request.blobPath), decompressor(buffer), createWriteStream(tar), {
      signal: request.signal,
    });
    const diffId = await digestOfFile(tar);
    const digest = await digestOfFile(request.blobPath);
    if (request.expectDiffId && request.expectDiffId !== diffId) {
      throw new EngineError('invalid-argument', `layer ${digest} could not be unpacked: its diff ID is ${diffId}`);
    }
    const tree = join(directory, 'tree');
    const signal = request.signal ? { signal: request.signal } : {};
    await runChild({ command: 'mkdir', args: [tree] });
    await runChild({ command: 'tar', args: ['-xf', tar, '-C', tree], ...signal });
    await runChild({ command: 'mkfs.erofs', args: ['-T0', '--quiet', request.outputPath, tree], ...signal });
    return {
      digest,
      diffId,
      compressedBytes: (await stat(request.blobPath)).size,
      uncompressedBytes: (await stat(tar)).size,
      imageBytes: (await stat(request.outputPath)).size,
    };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function decompressor(head: Buffer): Duplex {
  if (head[0] === 0x1f && head[1] === 0x8b) return createGunzip();
  if (head[0] === 0x28 && head[1] === 0xb5) return createZstdDecompress();
  return new PassThrough();
}

async function digestOfFile(path: string): Promise<ReturnType<typeof digestFromHex>> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return digestFromHex(hash.digest('hex'));
}
