import { EngineError } from '../core/errors.ts';
import { HOST_CONFIG_SUPPORT, isSet } from '../core/host-config-support.ts';
import { shortId } from '../core/ids.ts';
import { planResources, type HostResources, type MachineDefaults, type ResourcePlan } from '../core/resources.ts';
import { restartPolicy } from '../core/restart-policy.ts';
import { parseSignal } from '../core/signals.ts';
import type { ContainerConfig, ContainerCreateRequest, HostConfig } from '../wire/docker/container-config.ts';
import type { ContainerRecord } from './container-record.ts';
import type { Isolation, WallFacts } from './engine.ts';
import { planLogOptions } from './log-options.ts';
import { securityOptions } from './process-plan.ts';

/** The part of an image's configuration that a container inherits. */
export interface ImageDefaults {
  readonly id: string;
  readonly config: ContainerConfig;
}

export interface PlanContext {
  readonly host: HostResources;
  readonly machineDefaults: MachineDefaults;
  readonly defaultIsolation: Isolation;
  readonly allowedIsolations: readonly Isolation[];
  /** What a machine would run on here. */
  readonly accelerator: 'kvm' | 'tcg';
}

/** Checks a create request against image, host and walls, and decides everything about the container but its id and name. */
export function planContainer(
  request: ContainerCreateRequest,
  image: ImageDefaults,
  context: PlanContext,
  id: string,
): Omit<ContainerRecord, 'name' | 'createdAtMs'> & { warnings: string[] } {
  const { HostConfig: wantedHostConfig, NetworkingConfig: networking, ...wantedConfig } = request;
  const hostConfig: HostConfig = { ...(wantedHostConfig ?? {}) };
  const isolation = planIsolation(hostConfig, context);
  const config = mergeConfig(wantedConfig, image.config);
  const command = [...(config.Entrypoint ?? []), ...(config.Cmd ?? [])];
  if (command.length === 0 || (command.length === 1 && command[0] === '')) {
    throw new EngineError('invalid-argument', 'no command specified: the image has none; name one after the image');
  }
  checkConfig(config);
  checkHostConfig(hostConfig, isolation);
  hostConfig.NetworkMode = planNetworkMode(hostConfig, config, networking);
  hostConfig.Isolation = isolation;
  const resources = planResources(
    {
      nanoCpus: hostConfig.NanoCpus,
      cpuQuota: hostConfig.CpuQuota,
      cpuPeriod: hostConfig.CpuPeriod,
      memory: hostConfig.Memory,
    },
    context.host,
    context.machineDefaults,
  );
  const facts = wallFacts(isolation, resources, context.host, isolation === 'vm' ? context.accelerator : 'none');
  return {
    id,
    imageId: image.id,
    imageReference: request.Image ?? '',
    isolation,
    config,
    hostConfig,
    command,
    hostname: config.Hostname || shortId(id),
    facts,
    state: { status: 'created' },
    restartCount: 0,
    warnings: [],
  };
}

/** What is shown of the wall. `accelerator` is `none` for the os wall. */
export function wallFacts(
  isolation: Isolation,
  resources: ResourcePlan,
  host: HostResources,
  accelerator: WallFacts['accelerator'],
): WallFacts {
  if (isolation === 'vm') {
    const { vcpus, memoryLimitBytes, machineMemoryBytes } = resources;
    return { wall: 'vm', accelerator, driver: 'qemu', vcpus, memoryBytes: memoryLimitBytes ?? machineMemoryBytes };
  }
  const memoryBytes = resources.memoryLimitBytes ?? host.memoryBytes;
  return { wall: 'os', accelerator: 'none', driver: 'runc', vcpus: host.cpus, memoryBytes };
}

function planIsolation(hostConfig: HostConfig, context: PlanContext): Isolation {
  const asked = hostConfig.Isolation || 'default';
  const byRuntime = hostConfig.Runtime === 'vm' || hostConfig.Runtime === 'os' ? hostConfig.Runtime : undefined;
  if (hostConfig.Runtime && !byRuntime && hostConfig.Runtime !== 'runc') {
    throw new EngineError(
      'invalid-argument',
      `unknown or invalid runtime name: ${hostConfig.Runtime}; choose vm or os`,
    );
  }
  const isolation =
    asked === 'default' ? (byRuntime ?? (hostConfig.Runtime === 'runc' ? 'os' : context.defaultIsolation)) : asked;
  if (isolation !== 'vm' && isolation !== 'os') {
    throw new EngineError(
      'invalid-argument',
      `invalid isolation '${asked}': choose vm (a machine of its own) or os (the host's kernel)`,
    );
  }
  if (byRuntime && byRuntime !== isolation) {
    throw new EngineError(
      'invalid-argument',
      `--isolation ${isolation} and --runtime ${byRuntime} contradict each other`,
    );
  }
  if (!context.allowedIsolations.includes(isolation)) {
    throw new EngineError('forbidden', `isolation ${isolation} is not allowed by this daemon (--allowed-isolation)`);
  }
  return isolation;
}

/** The user's configuration over the image's, by Docker's rules. Source: moby runconfig/merge.go. */
function mergeConfig(wanted: ContainerConfig, image: ContainerConfig): ContainerConfig {
  const merged: ContainerConfig = { ...wanted };
  merged.User = wanted.User || image.User || '';
  merged.WorkingDir = wanted.WorkingDir || image.WorkingDir || '';
  merged.StopSignal = wanted.StopSignal || image.StopSignal || undefined;
  merged.Labels = { ...(image.Labels ?? {}), ...(wanted.Labels ?? {}) };
  merged.ExposedPorts = { ...(image.ExposedPorts ?? {}), ...(wanted.ExposedPorts ?? {}) };
  merged.Healthcheck = wanted.Healthcheck?.Test?.length
    ? wanted.Healthcheck
    : (wanted.Healthcheck ?? image.Healthcheck);
  merged.Env = mergeEnvironment(image.Env ?? [], wanted.Env ?? []);
  const entrypoint = wanted.Entrypoint ?? [];
  if (entrypoint.length > 0) {
    // `--entrypoint ""` arrives as [""]: none at all, and then the image's command goes too.
    merged.Entrypoint = entrypoint.length === 1 && entrypoint[0] === '' ? [] : entrypoint;
    merged.Cmd = wanted.Cmd ?? [];
  } else {
    merged.Entrypoint = image.Entrypoint ?? [];
    merged.Cmd = wanted.Cmd?.length ? wanted.Cmd : (image.Cmd ?? []);
  }
  return merged;
}

/** A variable named without a value is taken away. */
function mergeEnvironment(image: readonly string[], wanted: readonly string[]): string[] {
  const variables = new Map<string, string>();
  for (const entry of [...image, ...wanted]) {
    const [name = ''] = entry.split('=', 1);
    if (name === '') throw new EngineError('invalid-argument', `invalid environment variable: ${entry}`);
    if (entry.includes('=')) variables.set(name, entry);
    else variables.delete(name);
  }
  return [...variables.values()];
}

function checkConfig(config: ContainerConfig): void {
  const { WorkingDir: directory, StopSignal: signal } = config;
  if (directory && !directory.startsWith('/')) {
    throw new EngineError(
      'invalid-argument',
      `the working directory '${directory}' is invalid, it needs to be an absolute path`,
    );
  }
  if (signal) parseSignal(signal);
  // It becomes an argument of other programs.
  if (config.MacAddress && !/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(config.MacAddress)) {
    throw new EngineError(
      'invalid-argument',
      `invalid MAC address '${config.MacAddress}': write it like 02:42:ac:1e:00:05`,
    );
  }
  if (config.Hostname && (config.Hostname.length > 64 || /[\s/\0]/.test(config.Hostname))) {
    throw new EngineError(
      'invalid-argument',
      `invalid hostname '${config.Hostname}': at most 64 characters, no spaces or slashes`,
    );
  }
}

function checkHostConfig(hostConfig: HostConfig, isolation: Isolation): void {
  for (const [field, support] of Object.entries(HOST_CONFIG_SUPPORT)) {
    const chosen = support[isolation];
    if (chosen.kind === 'refused' && isSet((hostConfig as Record<string, unknown>)[field])) {
      throw new EngineError(
        'unsupported',
        `HostConfig.${field} is not supported with isolation ${isolation}: ${chosen.why}`,
      );
    }
  }
  if (hostConfig.AutoRemove && restartPolicy(hostConfig.RestartPolicy).name !== 'no') {
    throw new EngineError('invalid-argument', "can't create 'AutoRemove' container with restart policy");
  }
  for (const [field, value] of [
    ['PidMode', hostConfig.PidMode],
    ['UTSMode', hostConfig.UTSMode],
    ['UsernsMode', hostConfig.UsernsMode],
    ['IpcMode', hostConfig.IpcMode],
  ] as const) {
    if (value && !['private', 'shareable', 'none'].includes(value)) {
      throw new EngineError('unsupported', `${field} '${value}' is not supported: every container has its own`);
    }
  }
  securityOptions(hostConfig);
  planLogOptions(hostConfig);
  const logDriver = hostConfig.LogConfig?.Type;
  if (logDriver && logDriver !== 'json-file' && logDriver !== 'none') {
    throw new EngineError(
      'invalid-argument',
      `logging driver '${logDriver}' is not supported; choose json-file or none`,
    );
  }
}

function planNetworkMode(
  hostConfig: HostConfig,
  config: ContainerConfig,
  networking: ContainerCreateRequest['NetworkingConfig'],
): string {
  if (config.NetworkDisabled) return 'none';
  const [endpoint] = Object.keys(networking?.EndpointsConfig ?? {});
  const asked = hostConfig.NetworkMode || 'default';
  const mode = asked === 'default' ? (endpoint ?? 'bridge') : asked;
  const name = mode === 'default' ? 'bridge' : mode;
  if (name === 'host' || name.startsWith('container:')) {
    throw new EngineError(
      'unsupported',
      `network mode '${name}' is not supported by this version; choose bridge or none`,
    );
  }
  // Whether it exists is asked at start, as in Docker: a 404 to create would tell clients that the image is missing.
  return name;
}
