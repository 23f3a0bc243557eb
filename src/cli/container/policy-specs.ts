import { readFileSync } from 'node:fs';
import { UsageError } from '../flags/parse-flags.ts';

/** `no`, `always`, `unless-stopped`, `on-failure[:N]`. */
export function parseRestartPolicy(text: string): { Name: string; MaximumRetryCount: number } {
  if (text === '') return { Name: '', MaximumRetryCount: 0 };
  const [name = '', count, ...rest] = text.split(':');
  if (name === '') throw new UsageError('invalid restart policy format: no policy provided before colon');
  if (rest.length > 0 || (count !== undefined && !/^\d+$/.test(count))) {
    throw new UsageError('invalid restart policy format: maximum retry count must be an integer');
  }
  return { Name: name, MaximumRetryCount: Number(count ?? 0) };
}

/** `nofile=1024:2048`; one number is both limits. */
export function parseUlimit(text: string): { Name: string; Soft: number; Hard: number } {
  const match = /^([a-z]+)=(-?\d+)(?::(-?\d+))?$/.exec(text);
  if (match === null) throw new UsageError(`invalid ulimit argument: ${text} (use NAME=SOFT[:HARD])`);
  const soft = Number(match[2]);
  const hard = match[3] === undefined ? soft : Number(match[3]);
  if (hard !== -1 && (soft === -1 || soft > hard))
    throw new UsageError(`ulimit soft limit must be less than or equal to hard limit: ${soft} > ${hard}`);
  return { Name: match[1] ?? '', Soft: soft, Hard: hard };
}

/** `/dev/x[:/dev/y][:rwm]`. */
export function parseDevice(text: string): { PathOnHost: string; PathInContainer: string; CgroupPermissions: string } {
  const [source = '', ...rest] = text.split(':');
  if (source === '' || rest.length > 2) throw new UsageError(`invalid device specification: ${text}`);
  const isMode = (part: string): boolean => /^[rwm]{1,3}$/.test(part);
  const only = rest.length === 1 ? (rest[0] ?? '') : '';
  if (isMode(only)) return { PathOnHost: source, PathInContainer: source, CgroupPermissions: only };
  const mode = rest[1] ?? 'rwm';
  if (!isMode(mode)) throw new UsageError(`invalid device mode: ${mode}`);
  return { PathOnHost: source, PathInContainer: rest[0] || source, CgroupPermissions: mode };
}

export interface SecurityPlan {
  readonly options: string[];
  /** `systempaths=unconfined`: nothing under /proc is hidden. */
  readonly showsSystemPaths: boolean;
}

/** `--security-opt`; a seccomp profile is a file of the caller's machine, so its text is sent. */
export function planSecurity(specs: readonly string[]): SecurityPlan {
  const options: string[] = [];
  let showsSystemPaths = false;
  for (const spec of specs) {
    const [key = '', value] = spec.split(/[=:](.*)/s);
    if (value === undefined && key !== 'no-new-privileges')
      throw new UsageError(`invalid --security-opt: ${JSON.stringify(spec)}`);
    if (key === 'systempaths' && value === 'unconfined') showsSystemPaths = true;
    else if (key === 'seccomp' && value !== undefined && value !== 'unconfined' && value !== 'builtin')
      options.push(`seccomp=${readProfile(value)}`);
    else options.push(spec);
  }
  return { options, showsSystemPaths };
}

function readProfile(path: string): string {
  try {
    return JSON.stringify(JSON.parse(readFileSync(path, 'utf8')));
  } catch (error) {
    throw new UsageError(
      `opening seccomp profile (${path}) failed: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}
