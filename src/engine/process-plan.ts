import { EngineError } from '../core/errors.ts';
import { CAPABILITIES, planCapabilities } from '../core/capabilities.ts';
import type { ContainerConfig, HostConfig } from '../wire/docker/container-config.ts';
import type { Isolation } from './engine.ts';

/** What a process of a container is made from: its first one, or a further one (exec). */
export interface ProcessInput {
  readonly config: ContainerConfig;
  readonly hostConfig: HostConfig;
  readonly hostname: string;
  /** Program and arguments. */
  readonly command: readonly string[];
  readonly tty: boolean;
  /** Over the container's own: `NAME=value`; a bare `NAME` takes a variable away. */
  readonly extraEnvironment: readonly string[];
  /** Empty for `/`. */
  readonly workingDirectory: string;
  readonly isPrivileged: boolean;
  /** Capabilities that can be given at all in this wall. */
  readonly availableCapabilities: ReadonlySet<string>;
}

const DEFAULT_PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * The `process` object of the OCI runtime-spec; the wall fills in the user's numbers.
 * Source: https://github.com/opencontainers/runtime-spec/blob/main/config.md#process
 */
export function planProcess(input: ProcessInput): object {
  const { hostConfig } = input;
  const capabilities = capabilitiesOf(input);
  return {
    terminal: input.tty,
    user: { uid: 0, gid: 0 },
    args: input.command,
    env: planEnvironment(input),
    cwd: input.workingDirectory || '/',
    capabilities: {
      bounding: capabilities,
      effective: capabilities,
      permitted: capabilities,
    },
    rlimits: (hostConfig.Ulimits ?? []).map((limit) => ({
      type: `RLIMIT_${limit.Name.toUpperCase()}`,
      soft: rlimitValue(limit.Soft),
      hard: rlimitValue(limit.Hard),
    })),
    noNewPrivileges: securityOptions(hostConfig).noNewPrivileges,
    ...(hostConfig.OomScoreAdj ? { oomScoreAdj: hostConfig.OomScoreAdj } : {}),
  };
}

export function capabilitiesOf(
  input: Pick<ProcessInput, 'hostConfig' | 'isPrivileged' | 'availableCapabilities'>,
): string[] {
  return planCapabilities({
    add: input.hostConfig.CapAdd ?? [],
    drop: input.hostConfig.CapDrop ?? [],
    privileged: input.isPrivileged,
    available: input.availableCapabilities,
  });
}

/** A machine's kernel is its container's own: there all capabilities can be given. */
export function availableCapabilities(isolation: Isolation, ofHost: ReadonlySet<string>): ReadonlySet<string> {
  return isolation === 'vm' ? new Set(CAPABILITIES) : ofHost;
}

/** Docker's -1 is the kernel's RLIM_INFINITY, all 64 bits: more than a number holds exactly, so it is written as it stands. */
function rlimitValue(value: number): unknown {
  if (value >= 0) return value;
  return (JSON as typeof JSON & { rawJSON(text: string): unknown }).rawJSON('18446744073709551615');
}

export interface SecurityOptions {
  readonly noNewPrivileges: boolean;
  readonly isSeccompOff: boolean;
}

/** Docker's `--security-opt`. One that would have no effect here is refused: its user counts on it. */
export function securityOptions(hostConfig: HostConfig): SecurityOptions {
  const found = { noNewPrivileges: false, isSeccompOff: false };
  for (const option of hostConfig.SecurityOpt ?? []) {
    const [, name = '', value = ''] = /^([^=:]+)(?:[=:](.*))?$/s.exec(option) ?? [];
    if (name === 'no-new-privileges' && ['', 'true', 'false'].includes(value))
      found.noNewPrivileges = value !== 'false';
    else if (name === 'seccomp' && value === 'unconfined') found.isSeccompOff = true;
    else if (!(name === 'seccomp' && (value === 'builtin' || value === 'default'))) {
      throw new EngineError(
        'unsupported',
        `security option '${option.slice(0, 80)}' is not supported; there are no-new-privileges, seccomp=unconfined and seccomp=builtin`,
      );
    }
  }
  return found;
}

/** Docker's order: what every container has, the container's own, then what is given for this process. */
function planEnvironment({ config, hostname, tty, extraEnvironment }: ProcessInput): string[] {
  const given = [DEFAULT_PATH, `HOSTNAME=${hostname}`, ...(tty ? ['TERM=xterm'] : [])];
  const own = config.Env ?? [];
  const inherited = [...without(given, own), ...own.filter((entry) => entry.includes('='))];
  return [...without(inherited, extraEnvironment), ...extraEnvironment.filter((entry) => entry.includes('='))];
}

/** `entries` but for the variables that `others` name. */
function without(entries: readonly string[], others: readonly string[]): string[] {
  const names = new Set(others.map(variableName));
  return entries.filter((entry) => !names.has(variableName(entry)));
}

function variableName(entry: string): string {
  return entry.split('=', 1)[0] ?? '';
}
