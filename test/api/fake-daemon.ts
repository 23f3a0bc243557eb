import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ApiLogger } from '../../src/api/api-context.ts';
import { startApiServer, type ApiServer } from '../../src/api/server.ts';
import type { ImageStore } from '../../src/oci/image-store.ts';
import { FakeEngine } from './fake-engine.ts';

/** A line of the log, for tests that look at it. */
export interface LogLine {
  readonly level: string;
  readonly facts: object;
  readonly message: string;
}

/** The real API server over a fake engine, on a socket of its own. */
export interface FakeDaemon extends AsyncDisposable {
  readonly engine: FakeEngine;
  readonly server: ApiServer;
  readonly socketPath: string;
  readonly log: readonly LogLine[];
  /** Runs the real docker CLI. Never rejects; the exit code is in the result. */
  docker(args: readonly string[], options?: { stdin?: string | Buffer }): Promise<CommandResult>;
  spawnDocker(args: readonly string[]): ChildProcess;
  /** A bare connection to the socket. */
  connect(): Promise<Socket>;
  /** Sends bytes, and collects the answer until the server closes or `until` is in it. */
  exchange(request: string, until?: string): Promise<string>;
}

export interface CommandResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export async function startFakeDaemon(images = {} as ImageStore): Promise<FakeDaemon> {
  const directory = await mkdtemp(join(tmpdir(), 'bulkhead-api-'));
  const socketPath = join(directory, 'api.sock');
  const engine = new FakeEngine(images);
  const log: LogLine[] = [];
  const server = await startApiServer(
    {
      engine,
      listeners: [{ kind: 'unix', path: socketPath }],
      logger: recordingLogger(log),
      version: { bulkhead: '0.1.0', engine: '28.5.2', commit: 'abcdef0', buildTime: '' },
    },
    new AbortController().signal,
  );
  // The CLI's own configuration (contexts, credentials, plugins) must not matter.
  const env = { PATH: process.env['PATH'] ?? '', HOME: directory, DOCKER_HOST: `unix://${socketPath}` };
  const openConnection = (): Promise<Socket> =>
    new Promise((resolve, reject) => {
      const socket = connect({ path: socketPath, allowHalfOpen: true });
      socket.once('connect', () => resolve(socket)).once('error', reject);
    });
  return {
    engine,
    server,
    socketPath,
    log,
    docker: (args, options = {}) =>
      new Promise((resolve) => {
        const child = execFile('docker', [...args], { env, maxBuffer: 256 * 1024 * 1024 }, (_error, stdout, stderr) =>
          resolve({ exitCode: child.exitCode ?? -1, stdout, stderr }),
        );
        child.stdin?.on('error', () => undefined);
        child.stdin?.end(options.stdin ?? '');
      }),
    spawnDocker: (args) => spawn('docker', [...args], { env, stdio: 'pipe' }),
    connect: openConnection,
    async exchange(request, until) {
      const socket = await openConnection();
      socket.write(request);
      let answer = '';
      return new Promise((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`no end of answer: ${JSON.stringify(answer)}`)), 10_000);
        const settle = (): void => {
          clearTimeout(timer);
          socket.destroy();
          resolve(answer);
        };
        socket.on('data', (chunk: Buffer) => {
          answer += chunk.toString('latin1');
          if (until !== undefined && answer.includes(until)) settle();
        });
        socket.once('end', settle).once('close', settle);
      });
    },
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]();
      engine.containers[Symbol.dispose]();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

function recordingLogger(log: LogLine[]): ApiLogger {
  const record = (level: string) => (facts: object, message: string) => void log.push({ level, facts, message });
  return { debug: record('debug'), info: record('info'), warn: record('warn'), error: record('error') };
}
