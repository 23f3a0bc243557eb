import { z } from 'zod';

/** Health checks: native/protocol/src/health.rs. The output of a probe is the container's own words. */
export interface HealthCheck {
  /** The runtime-spec `process` object of a probe. */
  readonly process: object;
  readonly user: string;
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly startPeriodMs: number;
  readonly startIntervalMs: number;
  readonly retries: number;
}

export const healthReportSchema = z.object({
  sequence: z.number().int(),
  status: z.enum(['starting', 'healthy', 'unhealthy']),
  failingStreak: z.number().int(),
  log: z
    .array(
      z.object({
        number: z.number().int(),
        startedAtNs: z.number(),
        endedAtNs: z.number(),
        exitCode: z.number().int(),
        output: z.string(),
      }),
    )
    .default([]),
});
export type HealthReport = z.infer<typeof healthReportSchema>;
