import type { HealthCheck } from '../wire/shim-health.ts';
import type { ContainerRecord } from './container-record.ts';
import { planExec } from './exec-plan.ts';

const NS_PER_MS = 1e6;
/** Docker's. Source: moby daemon/health.go. */
const DEFAULTS_MS = { interval: 30_000, timeout: 30_000, startInterval: 5_000 };
const DEFAULT_RETRIES = 3;

/** Program and arguments of a container's health check; undefined for one without. */
export function healthCommand({ config }: Pick<ContainerRecord, 'config'>): string[] | undefined {
  const [kind, ...words] = config.Healthcheck?.Test ?? [];
  if (kind === 'CMD' && words.length > 0) return words;
  if (kind === 'CMD-SHELL' && words.length > 0) {
    const shell = config.Shell ?? [];
    return [...(shell.length > 0 ? shell : ['/bin/sh', '-c']), ...words];
  }
  return undefined;
}

/** What the shim is told; undefined for a container without a health check. */
export function planHealthCheck(
  record: Pick<ContainerRecord, 'config' | 'hostConfig' | 'hostname' | 'isolation'>,
  hostCapabilities: ReadonlySet<string>,
): HealthCheck | undefined {
  const command = healthCommand(record);
  if (!command) return undefined;
  const request = {
    command,
    tty: false,
    stdin: false,
    stdout: true,
    stderr: true,
    environment: [],
    user: '',
    workingDirectory: '',
    isPrivileged: false,
    detachKeys: undefined,
    size: undefined,
  };
  const { process, user } = planExec(record, request, { detach: true, size: undefined, hostCapabilities });
  const { Interval, Timeout, StartPeriod, StartInterval, Retries } = record.config.Healthcheck ?? {};
  const ms = (ns: number | null | undefined, otherwise: number): number =>
    Math.ceil((ns || 0) / NS_PER_MS) || otherwise;
  return {
    process,
    user,
    intervalMs: ms(Interval, DEFAULTS_MS.interval),
    timeoutMs: ms(Timeout, DEFAULTS_MS.timeout),
    startPeriodMs: ms(StartPeriod, 0),
    startIntervalMs: ms(StartInterval, DEFAULTS_MS.startInterval),
    retries: Retries || DEFAULT_RETRIES,
  };
}
