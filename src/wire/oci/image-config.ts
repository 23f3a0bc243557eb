import { z } from 'zod';
import { digestSchema, MAX_LAYERS } from './manifest.ts';

/**
 * The image configuration: tolerant, because old builders wrote `null` for every absent field and strings where lists belong.
 * Source: https://github.com/opencontainers/image-spec/blob/main/config.md and Docker's `container.Config`.
 */
const stringList = z
  .union([z.array(z.string()), z.string().transform((text) => [text])])
  .nullish()
  .transform((list) => list ?? undefined);
const stringMap = z
  .record(z.string(), z.string())
  .nullish()
  .catch(undefined)
  .transform((map) => map ?? undefined);
const keySet = z
  .record(z.string(), z.unknown())
  .nullish()
  .catch(undefined)
  .transform((map) => (map ? Object.keys(map) : undefined));
const text = z
  .string()
  .nullish()
  .transform((value) => value ?? undefined);
const nanoseconds = z.number().optional().catch(undefined);

export const healthcheckSchema = z.object({
  Test: stringList,
  Interval: nanoseconds,
  Timeout: nanoseconds,
  StartPeriod: nanoseconds,
  StartInterval: nanoseconds,
  Retries: z.number().int().optional().catch(undefined),
});

/** What a container inherits from its image; keys as in Docker. `ExposedPorts` and `Volumes` are the keys of Docker's sets. */
export const containerDefaultsSchema = z.object({
  User: text,
  ExposedPorts: keySet,
  Env: stringList,
  Entrypoint: stringList,
  Cmd: stringList,
  Volumes: keySet,
  WorkingDir: text,
  Labels: stringMap,
  StopSignal: text,
  StopTimeout: z
    .number()
    .int()
    .nullish()
    .catch(undefined)
    .transform((value) => value ?? undefined),
  Healthcheck: healthcheckSchema
    .nullish()
    .catch(undefined)
    .transform((value) => value ?? undefined),
  Shell: stringList,
  OnBuild: stringList,
  ArgsEscaped: z
    .boolean()
    .nullish()
    .catch(undefined)
    .transform((value) => value ?? undefined),
});
export type ContainerDefaults = z.infer<typeof containerDefaultsSchema>;

export const historyEntrySchema = z.object({
  created: text,
  created_by: text,
  author: text,
  comment: text,
  empty_layer: z
    .boolean()
    .nullish()
    .transform((value) => value ?? false),
});
export type HistoryEntry = z.infer<typeof historyEntrySchema>;

export const imageConfigSchema = z.object({
  architecture: text.transform((value) => value ?? ''),
  os: text.transform((value) => value ?? ''),
  variant: text,
  created: text,
  author: text,
  docker_version: text,
  config: containerDefaultsSchema.nullish().transform((value) => value ?? containerDefaultsSchema.parse({})),
  rootfs: z.object({
    type: z.string().optional(),
    diff_ids: z
      .array(digestSchema)
      .max(MAX_LAYERS, `more than ${MAX_LAYERS} layers`)
      .nullish()
      .transform((list) => list ?? []),
  }),
  history: z
    .array(historyEntrySchema)
    .max(10_000)
    .nullish()
    .transform((list) => list ?? []),
});
export type ImageConfig = z.infer<typeof imageConfigSchema>;
