import { spawn } from 'node:child_process';
import type { Readable } from 'node:stream';
import { EngineError, systemErrorCode } from '../core/errors.ts';

export interface ChildSpec {
  readonly command: string;
  readonly args: readonly string[];
  /** A file descriptor the child reads as its standard input; nothing by default. */
  readonly stdin?: number;
  readonly env?: Readonly<Record<string, string>>;
  /** Kills the child (SIGKILL) when aborted. */
  readonly signal?: AbortSignal;
  /** Per stream; a child that says more is killed. Default 1 MiB. */
  readonly maxOutputBytes?: number;
}

export interface ChildOutcome {
  /** Absent when a signal ended it. */
  readonly exitCode?: number;
  readonly signalName?: NodeJS.Signals;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs a short-lived program to its end. Resolves whatever its exit code; rejects when it cannot start, is cancelled, or floods its
 * output. In every case the process is gone when the promise settles.
 */
export async function runChild(spec: ChildSpec): Promise<ChildOutcome> {
  spec.signal?.throwIfAborted();
  const limit = spec.maxOutputBytes ?? 1024 * 1024;
  const child = spawn(spec.command, spec.args, {
    stdio: [spec.stdin ?? 'ignore', 'pipe', 'pipe'],
    ...(spec.env && { env: { ...spec.env } }),
  });
  let flooded = false;
  const collect = (stream: Readable | null): Buffer[] => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    stream?.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= limit) chunks.push(chunk);
      else {
        flooded = true;
        child.kill('SIGKILL');
      }
    });
    return chunks;
  };
  const stdout = collect(child.stdout);
  const stderr = collect(child.stderr);
  const kill = (): void => void child.kill('SIGKILL');
  spec.signal?.addEventListener('abort', kill, { once: true });
  try {
    const [exitCode, signalName] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code, signal) => resolve([code, signal]));
    });
    spec.signal?.throwIfAborted();
    if (flooded)
      throw new EngineError(
        'limit-exceeded',
        `${spec.command} wrote more than ${limit} bytes of output and was stopped`,
      );
    return {
      ...(exitCode !== null && { exitCode }),
      ...(signalName !== null && { signalName }),
      stdout: Buffer.concat(stdout).toString('utf8'),
      stderr: Buffer.concat(stderr).toString('utf8'),
    };
  } catch (error) {
    if (systemErrorCode(error) !== 'ENOENT') throw error;
    throw new EngineError('unavailable', `cannot run ${spec.command}: no such program; build or install it`, {
      cause: error,
    });
  } finally {
    spec.signal?.removeEventListener('abort', kill);
  }
}
