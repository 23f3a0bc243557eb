import { spawn, type ChildProcess, type SpawnOptions } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';

const RUN_TIMEOUT_MS = 120_000;
const STOP_TIMEOUT_MS = 30_000;

export interface Finished {
  readonly stdout: string;
  /** Both on the clock that the phases of a container are told in (CLOCK_MONOTONIC). */
  readonly startedNs: number;
  readonly endedNs: number;
}

const monotonicNs = (): number => Number(process.hrtime.bigint());

/** Runs a program to its end; one that fails is an error with what it said. */
export async function run(
  program: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = process.env,
  timeoutMs = RUN_TIMEOUT_MS,
): Promise<Finished> {
  const startedNs = monotonicNs();
  // In a group of its own, so that an interrupt at the terminal reaches only the benchmark, which then ends things in order.
  const child = spawn(program, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
    env,
    timeout: timeoutMs,
    killSignal: 'SIGKILL',
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  const endedNs = monotonicNs();
  if (code !== 0) {
    const said = (stderr.trim() || stdout.trim()).slice(-2000);
    throw new Error(`${program} ${args.join(' ')} ended with ${code ?? signal}: ${said}`);
  }
  return { stdout, startedNs, endedNs };
}

/** A daemon that runs until `stop`, its output in a file. */
export class Service implements AsyncDisposable {
  readonly name: string;
  readonly logPath: string;
  readonly #child: ChildProcess;
  #spawnError: Error | undefined;

  private constructor(name: string, logPath: string, child: ChildProcess) {
    this.name = name;
    this.logPath = logPath;
    this.#child = child;
    child.once('error', (error) => (this.#spawnError = error));
  }

  static start(
    name: string,
    program: string,
    args: readonly string[],
    logPath: string,
    options: SpawnOptions = {},
  ): Service {
    const child = spawn(program, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
    const log = createWriteStream(logPath);
    child.stdout?.pipe(log, { end: false });
    child.stderr?.pipe(log, { end: false });
    return new Service(name, logPath, child);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get #hasEnded(): boolean {
    return this.#spawnError !== undefined || this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  /** Resolves once `answers` does. */
  async ready(answers: () => Promise<unknown>, timeoutMs = 30_000): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const refusal = await answers().then(
        () => undefined,
        (error: unknown) => error,
      );
      if (refusal === undefined) return;
      if (this.#hasEnded) throw new Error(`${this.name} ended while starting: ${await this.#lastWords()}`);
      if (performance.now() > deadline) {
        throw new Error(`${this.name} does not answer after ${timeoutMs} ms: ${await this.#lastWords()}`, {
          cause: refusal,
        });
      }
      await sleep(100);
    }
  }

  async #lastWords(): Promise<string> {
    if (this.#spawnError) return this.#spawnError.message;
    const lines = (await readFile(this.logPath, 'utf8')).trim().split('\n');
    return `${lines.at(-1)}\nthe last lines of its log:\n${lines.slice(-8).join('\n')}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#hasEnded) return;
    const gone = once(this.#child, 'exit');
    this.#child.kill('SIGTERM');
    const force = setTimeout(() => this.#child.kill('SIGKILL'), STOP_TIMEOUT_MS);
    await gone;
    clearTimeout(force);
  }
}

/** Ends what still runs with `path` on its command line: `path` is a directory that only this run has ever named. */
export async function killProcessesNaming(path: string): Promise<number> {
  let killed = 0;
  for (const entry of await readdir('/proc')) {
    const pid = Number(entry);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    const commandLine = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (!commandLine.includes(path)) continue;
    try {
      process.kill(pid, 'SIGKILL');
      killed += 1;
    } catch {
      // It ended by itself meanwhile.
    }
  }
  return killed;
}
