import { spawn } from 'node:child_process';
import { open } from 'node:fs/promises';
import { EngineError } from '../core/errors.ts';

/** A program in a session of its own, which goes on when this process ends. */
export interface DetachedProgram {
  readonly pid: number;
  /** Resolves with how it ended, if it ends while this process lives: `exit code 1`, `signal SIGKILL`. */
  readonly ended: Promise<string>;
}

/** Starts a program; its standard output and errors are appended to a file, its input is empty. */
export async function startDetachedProgram(
  path: string,
  args: readonly string[],
  logPath: string,
): Promise<DetachedProgram> {
  await using log = await open(logPath, 'a', 0o600);
  const child = spawn(path, args, {
    detached: true,
    stdio: ['ignore', log.fd, log.fd],
    env: { PATH: process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin' },
  });
  const ended = new Promise<string>((resolve) => {
    child.once('exit', (code, signal) => resolve(signal === null ? `exit code ${code}` : `signal ${signal}`));
  });
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', (error) => {
      reject(new EngineError('unavailable', `cannot start ${path}: ${error.message}`, { cause: error }));
    });
  });
  child.unref();
  return { pid: child.pid ?? 0, ended };
}
