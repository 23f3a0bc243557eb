import { EngineError } from '../../core/errors.ts';
import { containerCreateSchema, type ContainerCreateRequest, type HostConfig } from './container-config.ts';

const NAME = /^\/?[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;

/** Members of the create body that are not the container's configuration. */
const OUTSIDE_CONFIG: ReadonlySet<string> = new Set(['HostConfig', 'NetworkingConfig']);

const CONFIG_FIELDS = Object.keys(containerCreateSchema.shape).filter((name) => !OUTSIDE_CONFIG.has(name));

/** What the API's version changes of these checks. */
export interface CreateCheckOptions {
  /** API 1.44 and later take several networks at once. */
  readonly allowsSeveralNetworks: boolean;
}

/** Checks that need nothing but the request. The texts are Docker's where clients know them (moby runconfig, daemon/container.go). */
export function checkContainerCreate(
  request: ContainerCreateRequest | undefined,
  options: CreateCheckOptions,
): ContainerCreateRequest {
  // In Docker the configuration is embedded: a body without any field of it has none.
  if (request === undefined || !Object.keys(request).some((key) => CONFIG_FIELDS.includes(key) || key === 'OnBuild')) {
    throw invalid('config cannot be empty in order to create a container');
  }
  checkConfig(request);
  checkHostConfig(request);
  checkNetworking(request, options);
  return request;
}

/** Undefined for none; the engine then makes one up. */
export function checkContainerName(name: string | undefined): string | undefined {
  if (name === undefined || name === '') return undefined;
  if (!NAME.test(name)) {
    throw invalid(`Invalid container name (${name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`);
  }
  return name;
}

function checkConfig(request: ContainerCreateRequest): void {
  const workingDirectory = request.WorkingDir ?? '';
  if (workingDirectory !== '' && !workingDirectory.startsWith('/')) {
    throw invalid(`the working directory '${workingDirectory}' is invalid, it needs to be an absolute path`);
  }
  for (const variable of request.Env ?? []) {
    if (variable.startsWith('=') || variable === '') throw invalid(`invalid environment variable: ${variable}`);
    if (variable.includes('\0')) throw invalid('invalid environment variable: it contains a zero byte');
  }
  for (const word of [...(request.Cmd ?? []), ...(request.Entrypoint ?? [])]) {
    if (word.includes('\0')) throw invalid('invalid command: it contains a zero byte');
  }
  checkHealthcheck(request);
}

/** Docker's least interval is 1 ms, in nanoseconds here. */
const LEAST_DURATION_NS = 1_000_000;

function checkHealthcheck(request: ContainerCreateRequest): void {
  const check = request.Healthcheck;
  if (!check) return;
  for (const field of ['Interval', 'Timeout', 'StartPeriod', 'StartInterval'] as const) {
    const value = check[field] ?? 0;
    if (value !== 0 && value < LEAST_DURATION_NS) throw invalid(`${field} in Healthcheck cannot be less than 1ms`);
  }
  if ((check.Retries ?? 0) < 0) throw invalid('Retries in Healthcheck cannot be negative');
}

function checkHostConfig(request: ContainerCreateRequest): void {
  const policy = request.HostConfig?.RestartPolicy;
  checkRestartPolicy(policy);
  if (request.HostConfig?.AutoRemove === true && (policy?.Name || 'no') !== 'no') {
    throw invalid("can't create 'AutoRemove' container with restart policy");
  }
}

/** Also of an update. */
export function checkRestartPolicy(policy: HostConfig['RestartPolicy']): void {
  const name = policy?.Name || 'no';
  if (!['no', 'always', 'unless-stopped', 'on-failure'].includes(name)) {
    throw invalid(
      `invalid restart policy: unknown policy '${name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'`,
    );
  }
  const retries = policy?.MaximumRetryCount ?? 0;
  if (retries !== 0 && name !== 'on-failure') {
    throw invalid("invalid restart policy: maximum retry count can only be used with 'on-failure'");
  }
  if (retries < 0) throw invalid('invalid restart policy: maximum retry count cannot be negative');
}

function checkNetworking(request: ContainerCreateRequest, options: CreateCheckOptions): void {
  const names = Object.keys(request.NetworkingConfig?.EndpointsConfig ?? {});
  if (names.length > 1 && !options.allowsSeveralNetworks) {
    throw invalid('Container cannot be created with multiple network endpoints');
  }
}

function invalid(message: string): EngineError {
  return new EngineError('invalid-argument', message);
}
