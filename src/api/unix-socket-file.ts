import { chown, lstat, readFile, unlink } from 'node:fs/promises';
import { connect } from 'node:net';
import { EngineError, systemErrorCode } from '../core/errors.ts';

/** Longest path of a unix socket on Linux: 108 bytes with the terminating zero (unix(7)). */
const PATH_LIMIT_BYTES = 107;

const ANSWER_TIMEOUT_MS = 1000;

/** Makes way for a socket at `path`: a socket that nobody answers on is removed; anything else there is an error. */
export async function clearStaleSocket(path: string): Promise<void> {
  if (Buffer.byteLength(path) > PATH_LIMIT_BYTES) {
    throw new EngineError(
      'invalid-argument',
      `socket path ${path} is longer than ${PATH_LIMIT_BYTES} bytes, the limit of unix sockets: choose a shorter one`,
    );
  }
  const stats = await lstat(path).catch((error: unknown) => {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw new EngineError('unavailable', `cannot look at socket path ${path}`, { cause: error });
  });
  if (stats === undefined) return;
  if (!stats.isSocket()) {
    throw new EngineError('conflict', `${path} exists and is not a socket: remove it or listen elsewhere`);
  }
  if (await answers(path)) {
    throw new EngineError(
      'conflict',
      `another process is listening on ${path}: stop it, or start this daemon with another --host`,
    );
  }
  await unlink(path);
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const settle = (isAnswered: boolean): void => {
      socket.destroy();
      resolve(isAnswered);
    };
    // A full backlog (EAGAIN) or a refused permission are signs of life: only a refusal says that nobody is there.
    socket.once('error', (error) =>
      settle(systemErrorCode(error) !== 'ECONNREFUSED' && systemErrorCode(error) !== 'ENOENT'),
    );
    socket.once('connect', () => settle(true));
    socket.setTimeout(ANSWER_TIMEOUT_MS, () => settle(true));
  });
}

/** Gives the socket to `group` where the host has such a group; otherwise it stays its owner's. */
export async function assignGroup(path: string, group: string): Promise<void> {
  const groups = await readFile('/etc/group', 'utf8').catch(() => '');
  const line = groups.split('\n').find((candidate) => candidate.startsWith(`${group}:`));
  const groupId = Number(line?.split(':')[2] ?? Number.NaN);
  if (!Number.isInteger(groupId)) return;
  try {
    await chown(path, -1, groupId);
  } catch (error) {
    // Without privilege only an own group can be given: then the socket is its owner's alone, which is the safe side.
    if (systemErrorCode(error) !== 'EPERM') throw error;
  }
}
