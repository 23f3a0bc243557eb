import { EngineError } from '../core/errors.ts';

/** Newest and oldest Docker Engine API version served. Docker 28.5 serves the same range. */
export const MAXIMUM_API_VERSION = '1.51';
export const MINIMUM_API_VERSION = '1.24';

/** A version of Docker's API, `1.51`: numbers divided by dots, compared number by number. */
export type ApiVersion = string;

/** Negative, zero or positive as `left` is older than, the same as or newer than `right`. */
export function compareVersions(left: ApiVersion, right: ApiVersion): number {
  const leftParts = left.split('.');
  const rightParts = right.split('.');
  const length = Math.max(leftParts.length, rightParts.length);
  for (let index = 0; index < length; index += 1) {
    const difference = Number(leftParts[index] ?? 0) - Number(rightParts[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

export function isAtLeast(version: ApiVersion, wanted: ApiVersion): boolean {
  return compareVersions(version, wanted) >= 0;
}

/** The version a request is answered in. The texts are Docker's (moby daemon/server/middleware/version.go); clients show them. */
export function negotiateVersion(requested: string | undefined): ApiVersion {
  if (requested === undefined) return MAXIMUM_API_VERSION;
  if (compareVersions(requested, MINIMUM_API_VERSION) < 0) {
    throw new EngineError(
      'invalid-argument',
      `client version ${requested} is too old. Minimum supported API version is ${MINIMUM_API_VERSION}, please upgrade your client to a newer version`,
    );
  }
  if (compareVersions(requested, MAXIMUM_API_VERSION) > 0) {
    throw new EngineError(
      'invalid-argument',
      `client version ${requested} is too new. Maximum supported API version is ${MAXIMUM_API_VERSION}`,
    );
  }
  return requested;
}
