import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import { busyboxImage, packImages, type TestImage } from './archive.ts';
import { keepSavedMachines, takeSavedMachines } from './saved-machine-cache.ts';

export const BULKHEAD = resolve(import.meta.dirname, '../../bin/bulkhead');
const START_TIMEOUT_MS = 30_000;
/** A daemon has a system's PATH. The test runner's own begins with npm's programs, one of which is named like one of the system's. */
const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly input?: Buffer | string;
  readonly timeoutMs?: number;
  readonly env?: Record<string, string>;
}

/**
 * A daemon of the test's own: data root, exec root, socket, bridge and firewall table. Disposing of it ends the daemon with its containers,
 * and fails the test if anything of it is left on the host.
 */
export class TestDaemon implements AsyncDisposable {
  readonly root: string;
  readonly socketPath: string;
  readonly dataRoot: string;
  readonly execRoot: string;
  readonly bridgePrefix: string;
  readonly #test: ExecutionContext;
  readonly #args: readonly string[];
  readonly #env: Readonly<Record<string, string>>;
  readonly #sharesMachines: boolean;
  #child: ChildProcess | undefined;

  private constructor(
    test: ExecutionContext,
    root: string,
    args: readonly string[],
    env: Readonly<Record<string, string>>,
    sharesMachines: boolean,
  ) {
    this.#test = test;
    this.#sharesMachines = sharesMachines;
    this.root = root;
    this.dataRoot = join(root, 'data');
    this.execRoot = join(root, 'run');
    this.socketPath = join(root, 'd.sock');
    this.bridgePrefix = `q${root
      .slice(-4)
      .toLowerCase()
      .replaceAll(/[^a-z0-9]/g, 'x')}`.slice(0, 5);
    this.#args = args;
    this.#env = env;
  }

  /** `env` is added to this process's own. Without `sharesMachines` it begins without saved machines, and nobody gets its own. */
  static async start(
    test: ExecutionContext,
    args: readonly string[] = [],
    env: Readonly<Record<string, string>> = {},
    { sharesMachines }: { readonly sharesMachines: boolean } = { sharesMachines: true },
  ): Promise<TestDaemon> {
    const daemon = new TestDaemon(test, await mkdtemp(join(tmpdir(), 'bh-')), args, env, sharesMachines);
    if (sharesMachines) await takeSavedMachines(daemon.dataRoot);
    await daemon.start();
    return daemon;
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  get logPath(): string {
    return join(this.root, 'daemon.log');
  }

  /** Starts it (again, after `kill`) and resolves once it answers. */
  async start(): Promise<void> {
    const child = spawn(
      BULKHEAD,
      [
        'daemon',
        ...['--host', `unix://${this.socketPath}`],
        ...['--data-root', this.dataRoot],
        ...['--exec-root', this.execRoot],
        ...['--bridge-prefix', this.bridgePrefix],
        '--shutdown-containers',
        ...this.#args,
      ],
      { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, PATH: SYSTEM_PATH, ...this.#env } },
    );
    this.#child = child;
    child.stderr.pipe(createWriteStream(this.logPath, { flags: 'a' }));
    const ended = once(child, 'exit').then(async ([code]) => {
      throw new Error(`the daemon ended with ${String(code)}: ${await this.readLog()}`);
    });
    ended.catch(() => undefined);
    await Promise.race([announced(child), ended]);
  }

  /** SIGKILL: the daemon's sudden death. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill('SIGKILL');
    await gone;
  }

  /** SIGTERM: it ends in order, and takes its containers with it. */
  async stop(): Promise<void> {
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill('SIGTERM');
    await gone;
  }

  async readLog(): Promise<string> {
    return (await readFile(this.logPath, 'utf8').catch(() => '')).slice(-4000);
  }

  /** The docker client, unmodified. */
  docker(args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
    return run('docker', ['-H', `unix://${this.socketPath}`, ...args], options);
  }

  /** Asks the docker client the same again until its output matches. */
  async until(args: readonly string[], pattern: RegExp): Promise<string> {
    const deadline = Date.now() + 30_000;
    for (;;) {
      const { stdout } = await this.docker(args);
      if (pattern.test(stdout)) return stdout;
      if (Date.now() > deadline)
        throw new Error(`docker ${args.join(' ')} never said ${String(pattern)}, but: ${stdout}`);
      await delay(50);
    }
  }

  /** Our own. */
  bulkhead(args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
    return run(BULKHEAD, ['-H', `unix://${this.socketPath}`, ...args], options);
  }

  async load(...images: readonly TestImage[]): Promise<void> {
    const path = join(this.root, 'images.tar');
    await writeFile(path, await packImages(images.length > 0 ? images : [await busyboxImage()]));
    const { code, stderr } = await this.docker(['load', '-i', path]);
    if (code !== 0) throw new Error(`docker load: ${stderr}`);
    await rm(path);
  }

  async leaks(): Promise<string> {
    const { stdout } = await run(
      BULKHEAD,
      [
        'doctor',
        '--leaks',
        ...['--data-root', this.dataRoot],
        ...['--exec-root', this.execRoot],
        ...['--bridge-prefix', this.bridgePrefix],
        ...['--host', `unix://${this.socketPath}`],
      ],
      { env: { PATH: SYSTEM_PATH } },
    );
    return stdout;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    const leaks = await this.leaks();
    if (!leaks.endsWith('0 leaks\n') || leaks.length > '0 leaks\n'.length)
      this.#test.fail(`left on the host:\n${leaks}`);
    if (this.#sharesMachines) await keepSavedMachines(this.dataRoot);
    if (this.#test.passed) await rm(this.root, { recursive: true, force: true });
    else this.#test.log(`kept for inspection: ${this.root}\n${await this.readLog()}`);
  }
}

async function announced(child: ChildProcess): Promise<void> {
  let output = '';
  const deadline = setTimeout(() => child.kill('SIGKILL'), START_TIMEOUT_MS);
  for await (const chunk of child.stdout ?? []) {
    output += String(chunk);
    if (output.includes('API listen on')) break;
  }
  clearTimeout(deadline);
}

/** Runs a program to its end. */
export function run(program: string, args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  return new Promise((done, reject) => {
    const child = spawn(program, args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...options.env },
      timeout: options.timeoutMs ?? 120_000,
      killSignal: 'SIGKILL',
    });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    child.stdin.on('error', () => undefined);
    child.stdin.end(options.input ?? '');
    child.once('error', reject);
    child.once('close', (code, signal) => done({ code: code ?? (signal ? 128 : 1), stdout, stderr }));
  });
}
