import { createHash } from 'node:crypto';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { digestOfBytes, hexOfDigest, type Digest } from '../../src/core/digest.ts';
import { encodeTarHeader, tarPadding } from '../../src/oci/tar-header.ts';

export interface Blob {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
  readonly bytes: Buffer;
}

export interface TestImage {
  readonly config: Blob;
  readonly layers: readonly Blob[];
  readonly diffIds: readonly Digest[];
  readonly manifest: Blob;
  readonly blobs: readonly Blob[];
}

export type Compression = 'gzip' | 'zstd' | 'none';

export function tarOf(files: Readonly<Record<string, Buffer | string>>): Buffer {
  const parts = Object.entries(files).flatMap(([name, content]) => {
    const bytes = Buffer.from(content);
    return [encodeTarHeader(name, bytes.length), bytes, tarPadding(bytes.length)];
  });
  return Buffer.concat([...parts, Buffer.alloc(1024)]);
}

/** Bytes that no compressor shortens, the same for the same seed. */
export function noise(byteCount: number, seed: string): Buffer {
  const parts: Buffer[] = [];
  for (let made = 0, block = 0; made < byteCount; made += 32, block += 1)
    parts.push(createHash('sha256').update(`${seed}${block}`).digest());
  return Buffer.concat(parts).subarray(0, byteCount);
}

export function blobOf(bytes: Buffer, mediaType: string): Blob {
  return { mediaType, digest: digestOfBytes(bytes), size: bytes.length, bytes };
}

function compress(tar: Buffer, compression: Compression): Buffer {
  if (compression === 'gzip') return gzipSync(tar, { level: 1 });
  return compression === 'zstd' ? zstdCompressSync(tar) : tar;
}

const LAYER_TYPES = {
  gzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  zstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
  none: 'application/vnd.oci.image.layer.v1.tar',
} as const;

export interface ImageSpec {
  readonly layers: readonly Readonly<Record<string, Buffer | string>>[];
  readonly compression?: Compression;
  readonly architecture?: string;
  readonly config?: Readonly<Record<string, unknown>>;
  readonly diffIds?: readonly Digest[];
}

export function createImage({
  layers,
  compression = 'gzip',
  architecture = 'amd64',
  config = {},
  diffIds: forged,
}: ImageSpec): TestImage {
  const tars = layers.map(tarOf);
  const diffIds = forged ?? tars.map((tar) => digestOfBytes(tar));
  const blobs = tars.map((tar) => blobOf(compress(tar, compression), LAYER_TYPES[compression]));
  const configuration = {
    architecture,
    os: 'linux',
    created: '2024-03-01T10:00:00Z',
    config: { Env: ['PATH=/bin'], Cmd: ['/bin/sh'], ...config },
    rootfs: { type: 'layers', diff_ids: diffIds },
    history: layers.map((_, position) => ({ created: '2024-03-01T10:00:00Z', created_by: `step ${position}` })),
  };
  const configBlob = blobOf(Buffer.from(JSON.stringify(configuration)), 'application/vnd.oci.image.config.v1+json');
  const manifest = blobOf(
    Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        config: descriptorOf(configBlob),
        layers: blobs.map(descriptorOf),
      }),
    ),
    'application/vnd.oci.image.manifest.v1+json',
  );
  return { config: configBlob, layers: blobs, diffIds, manifest, blobs: [...blobs, configBlob, manifest] };
}

export function descriptorOf({ mediaType, digest, size }: Blob): { mediaType: string; digest: Digest; size: number } {
  return { mediaType, digest, size };
}

export function indexOf(entries: readonly object[]): Blob {
  const mediaType = 'application/vnd.oci.image.index.v1+json';
  return blobOf(Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, manifests: entries })), mediaType);
}

/** An OCI layout as one tar. */
export function layoutArchive(image: TestImage, name?: string): Buffer {
  const annotations = name === undefined ? {} : { annotations: { 'org.opencontainers.image.ref.name': name } };
  return tarOf({
    'oci-layout': JSON.stringify({ imageLayoutVersion: '1.0.0' }),
    'index.json': indexOf([{ ...descriptorOf(image.manifest), ...annotations }]).bytes,
    ...Object.fromEntries(image.blobs.map(({ digest, bytes }) => [`blobs/sha256/${hexOfDigest(digest)}`, bytes])),
  });
}
