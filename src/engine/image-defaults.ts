import type { ImageRecord } from '../oci/image-records.ts';
import type { ContainerConfig } from '../wire/docker/container-config.ts';

/** What a container inherits from its image, in the words of the container API. */
export function imageDefaults(image: ImageRecord): ContainerConfig {
  const { ExposedPorts: ports, Volumes: volumes, Healthcheck: healthcheck, ...rest } = image.config.config;
  const toSet = (keys: readonly string[] | undefined): Record<string, Record<string, unknown>> =>
    Object.fromEntries((keys ?? []).map((key) => [key, {}]));
  return {
    ...withoutUndefined(rest),
    ExposedPorts: toSet(ports),
    Volumes: toSet(volumes),
    ...(healthcheck ? { Healthcheck: withoutUndefined(healthcheck) } : {}),
  };
}

function withoutUndefined<T extends object>(value: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, one]) => one !== undefined)) as {
    [K in keyof T]: Exclude<T[K], undefined>;
  };
}
