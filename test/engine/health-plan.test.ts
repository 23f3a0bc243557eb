import test from 'ava';
import { planHealthCheck } from '../../src/engine/health-plan.ts';
import type { ContainerConfig } from '../../src/wire/docker/container-config.ts';

const plan = (config: ContainerConfig): ReturnType<typeof planHealthCheck> =>
  planHealthCheck({ config, hostConfig: {}, hostname: 'box', isolation: 'os' }, new Set());

test('a command is run as it is, or by the image’s shell, or not at all', (t) => {
  const words = (config: ContainerConfig): unknown => (plan(config)?.process as { args?: unknown } | undefined)?.args;

  t.deepEqual(words({ Healthcheck: { Test: ['CMD', 'curl', '-f', 'x'] } }), ['curl', '-f', 'x']);
  t.deepEqual(words({ Healthcheck: { Test: ['CMD-SHELL', 'a && b'] } }), ['/bin/sh', '-c', 'a && b']);
  t.deepEqual(words({ Shell: ['/bin/ash', '-ec'], Healthcheck: { Test: ['CMD-SHELL', 'a'] } }), [
    '/bin/ash',
    '-ec',
    'a',
  ]);
  t.is(words({ Healthcheck: { Test: ['NONE'] } }), undefined);
  t.is(words({ Healthcheck: { Test: [] } }), undefined);
  t.is(words({}), undefined);
});

test('times are Docker’s where none are given, and never nothing', (t) => {
  const defaults = { intervalMs: 30_000, timeoutMs: 30_000, startPeriodMs: 0, startIntervalMs: 5_000, retries: 3 };

  t.like(plan({ Healthcheck: { Test: ['CMD', 'x'] } }), defaults);
  t.like(
    plan({ Healthcheck: { Test: ['CMD', 'x'], Interval: 1_500_000, Timeout: 2e9, StartPeriod: 3e9, Retries: 7 } }),
    {
      intervalMs: 2,
      timeoutMs: 2_000,
      startPeriodMs: 3_000,
      retries: 7,
    },
  );
});

test('a probe is the user’s, in the container’s directory and environment', (t) => {
  const check = plan({ User: 'web', WorkingDir: '/srv', Env: ['A=b'], Healthcheck: { Test: ['CMD', 'x'] } });

  t.is(check?.user, 'web');
  t.like(check?.process, { cwd: '/srv', terminal: false });
  t.true((check?.process as { env: string[] }).env.includes('A=b'));
});
