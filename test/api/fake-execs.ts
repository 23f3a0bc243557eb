import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { PassThrough } from 'node:stream';
import { isRunning } from '../../src/core/container-state.ts';
import { EngineError } from '../../src/core/errors.ts';
import type {
  Attachment,
  ExecRequest,
  ExecService,
  ExecStartOptions,
  ExecView,
  TerminalSize,
} from '../../src/engine/engine.ts';
import { encodeFrame, type FakeContainers } from './fake-containers.ts';

interface FakeExec {
  view: ExecView;
  readonly request: ExecRequest;
  wasStarted: boolean;
}

/** Runs the commands of execs as ordinary processes of this host. */
export class FakeExecs implements ExecService {
  readonly #execs = new Map<string, FakeExec>();
  readonly #containers: FakeContainers;
  readonly #calls: string[];

  constructor(containers: FakeContainers, calls: string[]) {
    this.#containers = containers;
    this.#calls = calls;
  }

  /** Of the last creation, as the API handed it over. */
  lastRequest: ExecRequest | undefined;

  create(nameOrId: string, request: ExecRequest): Promise<{ id: string }> {
    const container = this.#containers.inspect(nameOrId);
    if (!isRunning(container.state)) throw new EngineError('conflict', `container ${container.id} is not running`);
    const id = randomBytes(32).toString('hex');
    this.lastRequest = request;
    const view = { id, containerId: container.id, request, isRunning: false, exitCode: null, pid: 0 };
    this.#execs.set(id, { view, request, wasStarted: false });
    return Promise.resolve({ id });
  }

  async start(id: string, options: ExecStartOptions): Promise<Attachment | undefined> {
    this.#calls.push(options.detach ? 'exec detached' : 'exec');
    const exec = this.#find(id);
    if (exec.wasStarted) throw new EngineError('conflict', `exec command ${id} has already run`);
    exec.wasStarted = true;
    const [program = '', ...args] = exec.request.command;
    const env = Object.fromEntries(exec.request.environment.map((entry) => entry.split('=', 2) as [string, string]));
    const child = spawn(program, args, { stdio: 'pipe', env: { PATH: process.env['PATH'], ...env } });
    const output = new PassThrough();
    const end = (exitCode: number): void => {
      exec.view = { ...exec.view, isRunning: false, exitCode, pid: 0 };
      output.end();
    };
    child.stdin.on('error', () => undefined);
    const streams = { tty: exec.request.tty, output, input: child.stdin, close: () => void child.stdin.end() };
    try {
      await new Promise((resolve, reject) => child.once('spawn', () => resolve(undefined)).once('error', reject));
    } catch {
      output.write(encodeFrame(1, Buffer.from(`exec: "${program}": executable file not found in $PATH\r\n`)));
      end(127);
      return streams;
    }
    exec.view = { ...exec.view, isRunning: true, pid: child.pid ?? 0 };
    child.stdout.on('data', (chunk: Buffer) => output.write(encodeFrame(1, chunk)));
    child.stderr.on('data', (chunk: Buffer) => output.write(encodeFrame(2, chunk)));
    child.once('close', (code) => end(code ?? 137));
    if (!exec.request.stdin || options.detach) child.stdin.end();
    if (!options.detach) return streams;
    output.resume();
    return undefined;
  }

  resize(id: string, size: TerminalSize): Promise<void> {
    this.#find(id);
    this.#calls.push(`exec resize ${size.height}x${size.width}`);
    return Promise.resolve();
  }

  inspect(id: string): ExecView {
    return this.#find(id).view;
  }

  #find(id: string): FakeExec {
    const exec = this.#execs.get(id);
    if (exec === undefined) throw new EngineError('not-found', `No such exec instance: ${id}`);
    return exec;
  }
}
