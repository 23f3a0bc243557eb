import type { EngineError, ErrorCode } from '../core/errors.ts';

/**
 * The one map from the engine's error codes to HTTP statuses. Docker's choices (moby daemon/server/httpstatus/status.go); a command that
 * is missing or cannot be executed is the request's fault there (400), and the docker CLI makes 127 and 126 of the message's text.
 */
const STATUSES: Readonly<Record<ErrorCode, number>> = {
  'invalid-argument': 400,
  unauthorized: 401,
  forbidden: 403,
  'not-found': 404,
  conflict: 409,
  'wrong-state': 409,
  'not-modified': 304,
  'limit-exceeded': 400,
  unsupported: 501,
  unavailable: 503,
  'timed-out': 504,
  cancelled: 503,
  'command-not-found': 400,
  'command-not-executable': 400,
  'resource-exhausted': 500,
  internal: 500,
};

export function statusOfError(error: EngineError): number {
  return STATUSES[error.code];
}

/** Everything in the chain of causes, outermost first, for the log. */
export function describeCauses(error: unknown): string[] {
  const causes: string[] = [];
  let cause: unknown = error;
  // A chain that is longer than this, or goes round, is a fault of its own; the log must survive it.
  while (cause instanceof Error && causes.length < 16) {
    causes.push(cause.stack ?? cause.message);
    cause = cause.cause;
  }
  if (cause !== undefined && !(cause instanceof Error)) causes.push(JSON.stringify(cause) ?? 'unknown');
  return causes;
}
