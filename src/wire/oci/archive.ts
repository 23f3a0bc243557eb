import { z } from 'zod';
import { indexSchema } from './manifest.ts';

const memberPath = z.string().min(1).max(4096);

/** `manifest.json` of `docker save`. Source: https://github.com/moby/moby/blob/v28.2.2/image/tarexport/tarexport.go */
export const dockerArchiveSchema = z
  .array(
    z.object({
      Config: memberPath,
      RepoTags: z.array(z.string().max(600)).max(1000).nullish(),
      Layers: z.array(memberPath).max(1000).nullish(),
      Parent: z.string().max(600).optional().catch(undefined),
    }),
  )
  .max(1000);
export type DockerArchive = z.infer<typeof dockerArchiveSchema>;

/** `oci-layout`. Source: https://github.com/opencontainers/image-spec/blob/main/image-layout.md */
export const ociLayoutSchema = z.object({ imageLayoutVersion: z.literal('1.0.0') });

export const layoutIndexSchema = indexSchema;
