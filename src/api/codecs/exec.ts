import type { ExecRequest, ExecView, TerminalSize } from '../../engine/engine.ts';
import { EngineError } from '../../core/errors.ts';
import type { ExecCreateRequest } from '../../wire/docker/exec.ts';

/** The body of an exec's creation in the engine's terms. What it cannot be is refused here. */
export function decodeExecRequest(body: ExecCreateRequest): ExecRequest {
  const environment = body.Env ?? [];
  for (const entry of environment) {
    if (entry === '' || entry.startsWith('=')) throw invalid(`invalid environment variable: ${entry}`);
  }
  const texts = [...environment, ...(body.Cmd ?? []), body.User ?? '', body.WorkingDir ?? ''];
  if (texts.some((text) => text.includes('\0'))) throw invalid('invalid exec command: it contains a zero byte');
  return {
    command: body.Cmd ?? [],
    tty: body.Tty ?? false,
    stdin: body.AttachStdin ?? false,
    stdout: body.AttachStdout ?? false,
    stderr: body.AttachStderr ?? false,
    environment,
    user: body.User ?? '',
    workingDirectory: body.WorkingDir ?? '',
    isPrivileged: body.Privileged ?? false,
    detachKeys: body.DetachKeys || undefined,
    size: decodeConsoleSize(body.ConsoleSize),
  };
}

/** Height, width; undefined for none. */
export function decodeConsoleSize(size: readonly [number, number] | null | undefined): TerminalSize | undefined {
  return size ? { height: size[0], width: size[1] } : undefined;
}

/** `GET /exec/{id}/json`. Source: moby api/docs/v1.51.yaml, path /exec/{id}/json. */
export function encodeExecInspect(view: ExecView): Record<string, unknown> {
  const { request } = view;
  return {
    ID: view.id,
    Running: view.isRunning,
    ExitCode: view.exitCode,
    ProcessConfig: {
      tty: request.tty,
      entrypoint: request.command[0] ?? '',
      arguments: request.command.slice(1),
      privileged: request.isPrivileged,
      ...(request.user === '' ? {} : { user: request.user }),
    },
    OpenStdin: request.stdin,
    OpenStderr: request.stderr,
    OpenStdout: request.stdout,
    CanRemove: view.exitCode !== null,
    ContainerID: view.containerId,
    DetachKeys: '',
    Pid: view.pid,
  };
}

function invalid(message: string): EngineError {
  return new EngineError('invalid-argument', message);
}
