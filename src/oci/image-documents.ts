import type { z } from 'zod';
import { digestOfBytes, type Digest } from '../core/digest.ts';
import { EngineError } from '../core/errors.ts';
import { imageConfigSchema, type ImageConfig } from '../wire/oci/image-config.ts';
import {
  indexSchema,
  manifestSchema,
  manifestShapeSchema,
  mediaTypes,
  type Descriptor,
  type OciIndex,
  type OciManifest,
} from '../wire/oci/manifest.ts';

/** Manifests, indexes and configurations larger than this are refused before they are read. */
export const MAX_DOCUMENT_BYTES = 4 * 1024 * 1024;
export const MAX_CONFIG_BYTES = 8 * 1024 * 1024;

export function parseDocument<Schema extends z.ZodType>(
  schema: Schema,
  bytes: Uint8Array,
  subject: string,
): z.infer<Schema> {
  let json: unknown;
  try {
    json = JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch (error) {
    throw new EngineError('invalid-argument', `${subject} is not valid JSON`, { cause: error });
  }
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const where = issue && issue.path.length > 0 ? ` (${issue.path.join('.')}: ${issue.message})` : '';
  throw new EngineError('invalid-argument', `${subject} is not a valid document of its kind${where}`, {
    cause: parsed.error,
  });
}

export type ManifestDocument =
  { readonly kind: 'index'; readonly index: OciIndex } | { readonly kind: 'manifest'; readonly manifest: OciManifest };

/**
 * Told apart by shape, never by the media type alone: a document that is both an index and a manifest would mean different things to
 * different readers (CVE-2021-41190), so it is refused.
 */
export function parseManifestDocument(bytes: Uint8Array, subject: string): ManifestDocument {
  const shape = parseDocument(manifestShapeSchema, bytes, subject);
  if (shape.schemaVersion === 1 || shape.fsLayers !== undefined) {
    throw new EngineError(
      'unsupported',
      `${subject} has the image format of 2014 (schema 1), which is not supported; ask its author to push it again with a current tool`,
    );
  }
  if (shape.manifests !== undefined && shape.config !== undefined) {
    throw new EngineError('invalid-argument', `${subject} is ambiguous: both an index and a manifest`);
  }
  if (shape.manifests !== undefined) return { kind: 'index', index: parseDocument(indexSchema, bytes, subject) };
  const manifest = parseDocument(manifestSchema, bytes, subject);
  requireImageConfig(manifest.config, subject);
  return { kind: 'manifest', manifest };
}

const CONFIG_TYPES: readonly string[] = [
  mediaTypes.ociConfig,
  mediaTypes.dockerConfig,
  'application/octet-stream',
  'application/json',
  '',
];

function requireImageConfig({ mediaType, size }: Descriptor, subject: string): void {
  if (!CONFIG_TYPES.includes(mediaType)) {
    throw new EngineError(
      'unsupported',
      `${subject} is no container image: its configuration is ${mediaType.slice(0, 100)}`,
    );
  }
  if (size > MAX_CONFIG_BYTES) {
    throw new EngineError(
      'limit-exceeded',
      `the configuration of ${subject} has ${size} bytes, more than the ${MAX_CONFIG_BYTES} allowed`,
    );
  }
}

/** The configuration, checked against the number of layers it must describe. */
export function parseImageConfig(bytes: Uint8Array, layerCount: number, subject: string): ImageConfig {
  const config = parseDocument(imageConfigSchema, bytes, `the configuration of ${subject}`);
  const { length } = config.rootfs.diff_ids;
  if (length !== layerCount) {
    throw new EngineError(
      'invalid-argument',
      `${subject} is inconsistent: ${layerCount} layers, but ${length} diff IDs in its configuration`,
    );
  }
  if (config.os !== '' && config.os !== 'linux') {
    throw new EngineError(
      'unsupported',
      `image operating system "${config.os.slice(0, 40)}" cannot be used on this platform`,
    );
  }
  return config;
}

/** The manifest of an image that came without one. Equal images give equal bytes. */
export function composeManifest(
  config: { digest: Digest; size: number },
  layers: readonly Descriptor[],
): { bytes: Buffer; digest: Digest } {
  const pick = ({ mediaType, size, digest }: Descriptor): Descriptor => ({ mediaType, size, digest });
  const manifest = {
    schemaVersion: 2,
    mediaType: mediaTypes.ociManifest,
    config: { mediaType: mediaTypes.ociConfig, size: config.size, digest: config.digest },
    layers: layers.map(pick),
  };
  const bytes = Buffer.from(JSON.stringify(manifest));
  return { bytes, digest: digestOfBytes(bytes) };
}

/** Media type by the first bytes of a layer. */
export function layerMediaType(head: Uint8Array): string {
  if (head[0] === 0x1f && head[1] === 0x8b) return mediaTypes.ociLayerGzip;
  if (head[0] === 0x28 && head[1] === 0xb5 && head[2] === 0x2f && head[3] === 0xfd) return mediaTypes.ociLayerZstd;
  return mediaTypes.ociLayer;
}
