/** The daemon refused or failed a request. `message` is its own text, fit to be shown. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  /** HTTP status: 400 invalid, 401 unauthorized, 403 forbidden, 404 not found, 409 conflict, 500 failure, 503 unavailable … */
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}
