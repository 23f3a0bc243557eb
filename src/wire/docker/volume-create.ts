import { z } from 'zod';

/** Body of `POST /volumes/create`. Source: moby api/docs/v1.51.yaml, definition VolumeCreateOptions. */
export const volumeCreateSchema = z.looseObject({
  Name: z.string().nullish(),
  Driver: z.string().nullish(),
  DriverOpts: z.record(z.string(), z.string()).nullish(),
  Labels: z.record(z.string(), z.string()).nullish(),
});
