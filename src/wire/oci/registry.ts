import { z } from 'zod';

/** Error body of a registry. Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes */
export const registryErrorsSchema = z.object({
  errors: z
    .array(z.object({ code: z.string().max(200).catch('UNKNOWN'), message: z.string().max(4096).catch('') }))
    .min(1)
    .max(100),
});

/** Some token servers (and Docker Hub) answer `{"details": "…"}` or `{"message": "…"}` instead. */
export const registryDetailsSchema = z.union([
  z.object({ details: z.string().max(4096) }).transform(({ details }) => details),
  z.object({ message: z.string().max(4096) }).transform(({ message }) => message),
]);

/** Reply of a token server. Source: https://distribution.github.io/distribution/spec/auth/token/ */
export const tokenReplySchema = z
  .object({
    token: z
      .string()
      .max(64 * 1024)
      .optional(),
    access_token: z
      .string()
      .max(64 * 1024)
      .optional(),
    expires_in: z.number().optional().catch(undefined),
  })
  .transform(({ token, access_token, expires_in }) => ({
    token: token ?? access_token ?? '',
    expiresInSeconds: expires_in ?? 60,
  }));
