import { ApiError } from '../client/api-error.ts';
import { EngineError, type ErrorCode } from '../core/errors.ts';
import { UsageError } from './flags/parse-flags.ts';

export const EXIT_ERROR = 1;
export const EXIT_USAGE = 2;
export const EXIT_NOT_FOUND = 3;
export const EXIT_WRONG_STATE = 4;
export const EXIT_LIMIT = 5;
export const EXIT_TIMED_OUT = 124;
/** Of run: the daemon's or the command line's fault, not the program's. */
export const EXIT_RUN_FAILED = 125;
export const EXIT_NOT_EXECUTABLE = 126;
export const EXIT_COMMAND_NOT_FOUND = 127;

/** A command has already said what went wrong; only its exit code is left. */
export class ExitRequest extends Error {
  override readonly name = 'ExitRequest';
  readonly exitCode: number;

  constructor(exitCode: number) {
    super(`exit ${exitCode}`);
    this.exitCode = exitCode;
  }
}

const BY_ERROR_CODE: Readonly<Record<ErrorCode, number>> = {
  'invalid-argument': EXIT_ERROR,
  unauthorized: EXIT_ERROR,
  forbidden: EXIT_ERROR,
  'not-found': EXIT_NOT_FOUND,
  conflict: EXIT_WRONG_STATE,
  'wrong-state': EXIT_WRONG_STATE,
  'not-modified': EXIT_WRONG_STATE,
  'limit-exceeded': EXIT_LIMIT,
  unsupported: EXIT_ERROR,
  unavailable: EXIT_ERROR,
  'timed-out': EXIT_TIMED_OUT,
  cancelled: EXIT_ERROR,
  'command-not-found': EXIT_COMMAND_NOT_FOUND,
  'command-not-executable': EXIT_NOT_EXECUTABLE,
  'resource-exhausted': EXIT_LIMIT,
  internal: EXIT_ERROR,
};

const BY_STATUS: Readonly<Record<number, number>> = {
  404: EXIT_NOT_FOUND,
  408: EXIT_TIMED_OUT,
  409: EXIT_WRONG_STATE,
  413: EXIT_LIMIT,
  429: EXIT_LIMIT,
  504: EXIT_TIMED_OUT,
  507: EXIT_LIMIT,
};

/** The one map from what was thrown to an exit code. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof ExitRequest) return error.exitCode;
  if (error instanceof UsageError) return EXIT_USAGE;
  if (error instanceof ApiError) return BY_STATUS[error.status] ?? EXIT_ERROR;
  if (error instanceof EngineError) return BY_ERROR_CODE[error.code];
  return EXIT_ERROR;
}

/**
 * Exit code of a `run` or `start --attach` whose start failed. The API has no field that tells a missing program from other failures: like
 * Docker's CLI this reads the runtime's message, whose words are part of Docker's interface (docker-api.md 2.9).
 */
export function startFailureExitCode(error: unknown): number {
  if (error instanceof ExitRequest) return error.exitCode;
  if (!(error instanceof ApiError)) return EXIT_RUN_FAILED;
  const message = error.message.toLowerCase();
  if (
    message.includes('executable file not found') ||
    message.includes('no such file or directory') ||
    message.includes('system cannot find the file specified')
  ) {
    return EXIT_COMMAND_NOT_FOUND;
  }
  if (message.includes('permission denied') || message.includes('is a directory')) return EXIT_NOT_EXECUTABLE;
  return EXIT_RUN_FAILED;
}

/** The error as the user reads it. */
export function describeError(error: unknown): string {
  if (error instanceof ApiError) return `Error response from daemon: ${error.message}`;
  return error instanceof Error ? error.message : String(error);
}
