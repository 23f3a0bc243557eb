import { statfs } from 'node:fs/promises';
import { EngineError, systemErrorCode } from '../core/errors.ts';

/** Kept free beside what a download needs, so that the state file and running containers can still write. */
const RESERVE_BYTES = 16 * 1024 * 1024;

function formatMebibytes(bytes: number): string {
  return `${Math.ceil(bytes / (1024 * 1024))} MiB`;
}

/** Refuses early what cannot fit: a late ENOSPC takes every container's writes down with it. */
export async function requireFreeSpace(path: string, neededBytes: number, purpose: string): Promise<void> {
  const { bavail, bsize } = await statfs(path);
  const freeBytes = bavail * bsize;
  if (neededBytes + RESERVE_BYTES <= freeBytes) return;
  throw new EngineError(
    'resource-exhausted',
    `no space left in ${path} for ${purpose}: it needs ${formatMebibytes(neededBytes)} and ${formatMebibytes(RESERVE_BYTES)} of reserve, ` +
      `${formatMebibytes(freeBytes)} are free; remove images or move the data root`,
    { details: { path, neededBytes, freeBytes } },
  );
}

/** A full disk or quota as `resource-exhausted` naming the path; anything else as it was. */
export function explainStorageFailure(thrown: unknown, path: string): unknown {
  const code = systemErrorCode(thrown);
  if (code !== 'ENOSPC' && code !== 'EDQUOT') return thrown;
  return new EngineError('resource-exhausted', `no space left in ${path}; remove images or move the data root`, {
    details: { path },
    cause: thrown,
  });
}
