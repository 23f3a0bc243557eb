import type { z } from 'zod';
import { hostConfigSchema } from './container-config.ts';

/** Body of `POST /containers/{id}/update`. Zero and empty mean "as it is". Source: moby api/docs/v1.51.yaml, definition Resources. */
export const containerUpdateSchema = hostConfigSchema.pick({
  CpuShares: true,
  Memory: true,
  NanoCpus: true,
  CpuPeriod: true,
  CpuQuota: true,
  CpusetCpus: true,
  CpusetMems: true,
  MemoryReservation: true,
  MemorySwap: true,
  PidsLimit: true,
  RestartPolicy: true,
});

export type ContainerUpdateRequest = z.infer<typeof containerUpdateSchema>;
