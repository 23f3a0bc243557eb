import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process';
import { open } from 'node:fs/promises';
import type { Duplex } from 'node:stream';
import { EngineError } from '../core/errors.ts';

/** A process in a session of its own that this one does not wait for: it goes on when this one ends. */
export interface DetachedProcess {
  readonly pid: number;
  /**
   * Gives `input` to the process on file descriptor 3 and reads what it says on descriptor 4 until it closes it.
   * Empty when the process ended without a word.
   */
  converse(input: string, timeoutMs: number): Promise<string>;
  kill(): void;
}

/** Longest answer that is listened to, bytes: it is a status line, not data. */
const MAXIMUM_ANSWER_BYTES = 64 * 1024;

/** Starts `path`; its stdout and stderr go to the file open at `logFd`. */
export function spawnDetached(path: string, args: readonly string[], logFd: number): DetachedProcess {
  const child = spawnSession(path, args, ['ignore', logFd, logFd, 'pipe', 'pipe']);
  const failed = new Promise<never>((_, reject) => {
    child.once('error', (error) => {
      reject(new EngineError('internal', `cannot start ${path}: ${error.message}`, { cause: error }));
    });
  });
  failed.catch(() => undefined);
  const [, , , input, output] = child.stdio as unknown as [null, null, null, Duplex, Duplex];
  input.on('error', () => undefined); // The process ended before it read all: its answer, or the lack of one, says why.
  return {
    pid: child.pid ?? 0,
    converse: async (text, timeoutMs) => {
      input.end(text);
      const answer = readBounded(output, timeoutMs, path);
      return await Promise.race([answer, failed]).finally(() => {
        input.destroy();
        output.destroy();
      });
    },
    kill: () => {
      child.kill('SIGKILL');
    },
  };
}

async function readBounded(stream: Duplex, timeoutMs: number, name: string): Promise<string> {
  const timer = setTimeout(() => {
    stream.destroy(new EngineError('timed-out', `${name} did not become ready within ${timeoutMs / 1000} s`));
  }, timeoutMs);
  try {
    let text = '';
    for await (const chunk of stream) {
      text += (chunk as Buffer).toString('utf8');
      if (text.length > MAXIMUM_ANSWER_BYTES)
        throw new EngineError('internal', `${name} said more than a status line at its start`);
    }
    return text;
  } finally {
    clearTimeout(timer);
  }
}

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
  const child = spawnSession(path, args, ['ignore', log.fd, log.fd]);
  const ended = new Promise<string>((resolve) => {
    child.once('exit', (code, signal) => resolve(signal === null ? `exit code ${code}` : `signal ${signal}`));
  });
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', (error) => {
      reject(new EngineError('unavailable', `cannot start ${path}: ${error.message}`, { cause: error }));
    });
  });
  return { pid: child.pid ?? 0, ended };
}

/** With nothing of this process's environment but where programs are. */
function spawnSession(path: string, args: readonly string[], stdio: StdioOptions): ChildProcess {
  const env = { PATH: process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin' };
  const child = spawn(path, args, { detached: true, stdio, env });
  child.unref();
  return child;
}
