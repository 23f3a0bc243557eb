import { spawn } from 'node:child_process';
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
  const child = spawn(path, args, {
    detached: true,
    stdio: ['ignore', logFd, logFd, 'pipe', 'pipe'],
    env: { PATH: process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin' },
  });
  const failed = new Promise<never>((_, reject) => {
    child.once('error', (error) => {
      reject(new EngineError('internal', `cannot start ${path}: ${error.message}`, { cause: error }));
    });
  });
  failed.catch(() => undefined);
  const [, , , input, output] = child.stdio as unknown as [null, null, null, Duplex, Duplex];
  input.on('error', () => undefined); // The process ended before it read all: its answer, or the lack of one, says why.
  child.unref();
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
