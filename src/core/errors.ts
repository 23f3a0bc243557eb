/** Closed list of what can go wrong, in the engine's own terms. `docs/errors.md` says what each means to a user. */
export type ErrorCode =
  | 'invalid-argument'
  | 'unauthorized'
  | 'forbidden'
  | 'not-found'
  | 'conflict'
  | 'wrong-state'
  | 'not-modified'
  | 'limit-exceeded'
  | 'unsupported'
  | 'unavailable'
  | 'timed-out'
  | 'cancelled'
  | 'command-not-found'
  | 'command-not-executable'
  | 'resource-exhausted'
  | 'internal';

export interface EngineErrorOptions {
  /** Facts for programs and the log, for example `{ digest, expectedBytes }`. Never secrets. */
  details?: Readonly<Record<string, unknown>>;
  cause?: unknown;
}

/** The one error that crosses room boundaries. The message names the object and the next step. */
export class EngineError extends Error {
  override readonly name = 'EngineError';
  readonly code: ErrorCode;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, message: string, options: EngineErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.details = options.details ?? {};
  }
}

/** Whatever was thrown, as an EngineError; what is not one yet becomes `internal` with the original as its cause. */
export function toEngineError(thrown: unknown, context = 'unexpected failure'): EngineError {
  if (thrown instanceof EngineError) return thrown;
  if (thrown instanceof Error && thrown.name === 'AbortError') {
    return new EngineError('cancelled', 'the request was cancelled', { cause: thrown });
  }
  const text = thrown instanceof Error ? thrown.message : String(thrown);
  return new EngineError('internal', `${context}: ${text}`, { cause: thrown });
}

/** System error code (`ENOENT` …) of a Node error, or the empty string. */
export function systemErrorCode(thrown: unknown): string {
  if (thrown instanceof Error && 'code' in thrown && typeof thrown.code === 'string') return thrown.code;
  return '';
}
