import type { EngineError } from '../core/errors.ts';
import type { CreateProcess } from '../wire/shim.ts';
import type { ContainerRecord } from './container-record.ts';
import type { ExecRequest, ExecStartOptions } from './engine.ts';
import { availableCapabilities, planProcess } from './process-plan.ts';

/** What the sandbox is asked for: the request over the container's own configuration, as Docker lays them. */
export function planExec(
  record: Pick<ContainerRecord, 'config' | 'hostConfig' | 'hostname' | 'isolation'>,
  request: ExecRequest,
  options: ExecStartOptions & { readonly hostCapabilities: ReadonlySet<string> },
): CreateProcess {
  const { config, hostConfig, hostname } = record;
  const size = options.size ?? request.size;
  return {
    process: planProcess({
      config,
      hostConfig,
      hostname,
      command: request.command,
      tty: request.tty,
      extraEnvironment: request.environment,
      workingDirectory: request.workingDirectory || (config.WorkingDir ?? ''),
      isPrivileged: request.isPrivileged || (hostConfig.Privileged ?? false),
      availableCapabilities: availableCapabilities(record.isolation, options.hostCapabilities),
    }),
    user: request.user || (config.User ?? ''),
    // Nobody could ever write to the stdin of a detached one.
    stdin: request.stdin && !options.detach,
    ...(request.tty && size && size.height > 0 && size.width > 0 ? { terminalSize: size } : {}),
  };
}

/** Exit code of an exec whose program could not be started. */
export function execFailureExitCode(error: EngineError): number {
  if (error.code === 'command-not-found' || error.details['shimCode'] === 'bad-working-directory') return 127;
  return 126;
}

const RUNTIME_PREFIX = 'exec failed: unable to start container process: ';

/** As Docker puts it; the os wall's runtime has the half of it already. */
export function execFailureText(error: EngineError): string {
  const { message } = error;
  if (error.details['shimCode'] === 'no-such-user') return message;
  return `OCI runtime exec failed: ${message.startsWith(RUNTIME_PREFIX) ? '' : RUNTIME_PREFIX}${message}: unknown`;
}

/** Text of ours in a stream of a process's output. */
export function encodeStdoutText(text: string, tty: boolean): Buffer {
  const payload = Buffer.from(text);
  if (tty) return payload;
  const header = Buffer.alloc(8);
  header[0] = 1;
  header.writeUInt32BE(payload.length, 4);
  return Buffer.concat([header, payload]);
}
