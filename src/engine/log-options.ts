import { EngineError } from '../core/errors.ts';
import { parseSize } from '../core/units.ts';
import type { HostConfig } from '../wire/docker/container-config.ts';

/** More rotated files than that are no log but a directory. */
const MAXIMUM_FILES = 1000;

export interface LogOptionsPlan {
  readonly driver: string;
  /** 0: never rotated. */
  readonly maxSizeBytes: number;
  readonly maxFiles: number;
}

/** Docker's options of the json-file driver. Refused already at create: at start it would be too late to say so. */
export function planLogOptions(hostConfig: HostConfig): LogOptionsPlan {
  const { Type: driver, Config: options } = hostConfig.LogConfig ?? {};
  const maxSize = options?.['max-size'];
  const text = options?.['max-file'] ?? '1';
  const maxFiles = Number(text);
  if (!Number.isInteger(maxFiles) || maxFiles < 1 || maxFiles > MAXIMUM_FILES) {
    throw new EngineError(
      'invalid-argument',
      `log option max-file=${text}: write a whole number, 1 to ${MAXIMUM_FILES}`,
    );
  }
  const maxSizeBytes = maxSize && maxSize !== '-1' ? parseSize(maxSize) : 0;
  return { driver: driver || 'json-file', maxSizeBytes, maxFiles };
}
