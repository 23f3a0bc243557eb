import { z } from 'zod';
import { isDigest, type Digest } from '../../core/digest.ts';

/**
 * Manifests and indexes as registries and archives give them. Unknown keys are kept out; the bytes themselves are stored untouched.
 * Sources: https://github.com/opencontainers/image-spec/blob/main/manifest.md, image-index.md
 */
export const mediaTypes = {
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  ociConfig: 'application/vnd.oci.image.config.v1+json',
  ociLayer: 'application/vnd.oci.image.layer.v1.tar',
  ociLayerGzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  ociLayerZstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
  dockerList: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerManifestV1: 'application/vnd.docker.distribution.manifest.v1+json',
  dockerManifestV1Signed: 'application/vnd.docker.distribution.manifest.v1+prettyjws',
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
  dockerLayer: 'application/vnd.docker.image.rootfs.diff.tar',
  dockerLayerGzip: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
} as const;

/** Layers the guest can overlay: one lower directory each. */
export const MAX_LAYERS = 127;

export const digestSchema = z.custom<Digest>(
  (value) => typeof value === 'string' && isDigest(value),
  'not a sha256 digest',
);
const sizeSchema = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER);
const textSchema = z.string().max(4096);

export const platformSchema = z.object({
  architecture: textSchema.catch(''),
  os: textSchema.catch(''),
  variant: textSchema.optional().catch(undefined),
});
export type OciPlatform = z.infer<typeof platformSchema>;

export const descriptorSchema = z.object({
  mediaType: textSchema,
  digest: digestSchema,
  size: sizeSchema,
});
export type Descriptor = z.infer<typeof descriptorSchema>;

const indexEntrySchema = descriptorSchema.extend({
  platform: platformSchema.nullish(),
  annotations: z.record(z.string(), z.string()).nullish().catch(undefined),
});
export type IndexEntry = z.infer<typeof indexEntrySchema>;

export const indexSchema = z.object({
  schemaVersion: z.literal(2),
  mediaType: textSchema.optional(),
  manifests: z.array(indexEntrySchema).max(4096),
});
export type OciIndex = z.infer<typeof indexSchema>;

export const manifestSchema = z.object({
  schemaVersion: z.literal(2),
  mediaType: textSchema.optional(),
  config: descriptorSchema,
  layers: z.array(descriptorSchema).max(MAX_LAYERS, `more than ${MAX_LAYERS} layers`),
});
export type OciManifest = z.infer<typeof manifestSchema>;

/** What tells an index from a manifest from schema 1 when the media type is missing or wrong. */
export const manifestShapeSchema = z.object({
  schemaVersion: z.number().optional(),
  mediaType: textSchema.optional(),
  manifests: z.unknown().optional(),
  config: z.unknown().optional(),
  fsLayers: z.unknown().optional(),
});
