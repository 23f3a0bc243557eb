import { access, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { EngineError } from '../../../src/core/errors.ts';
import type { Sandbox, SandboxLauncher } from '../../../src/sandbox/sandbox.ts';
import {
  PROTOCOL_GENERATION,
  type SandboxConfig,
  type SandboxExit,
  type SandboxStatus,
} from '../../../src/wire/shim.ts';

/** A sandbox without a process: it waits, and can be ended. */
export class FakeSandbox implements Sandbox {
  readonly config: SandboxConfig;
  state: 'warming' | 'waiting' | 'ready' | 'ended' = 'waiting';
  stops = 0;
  releases = 0;
  /** Its shim was killed. */
  isDead = false;

  constructor(config: SandboxConfig) {
    this.config = config;
  }

  get id(): string {
    return this.config.id;
  }

  get image(): string | undefined {
    return this.config.pool?.keepLayers ? String(this.config.pool.warmUp.user) : undefined;
  }

  async status(): Promise<SandboxStatus> {
    this.#assertAlive();
    const { state } = this;
    return { generation: PROTOCOL_GENERATION, state, shimPid: 0, machinePid: 0, containers: {}, ports: [], phases: [] };
  }

  async stop(): Promise<void> {
    this.#assertAlive();
    this.stops += 1;
    this.state = 'ended';
  }

  async release(): Promise<[]> {
    this.#assertAlive();
    this.releases += 1;
    await rm(this.config.runtimeDir, { recursive: true, force: true });
    return [];
  }

  #assertAlive(): void {
    if (this.isDead) throw new EngineError('unavailable', 'its shim is gone');
  }

  assign = (): Promise<void> => refuse('assign');
  createContainer = (): Promise<void> => refuse('createContainer');
  createProcess = (): Promise<void> => refuse('createProcess');
  start = (): Promise<{ pid: number }> => refuse('start');
  kill = (): Promise<void> => refuse('kill');
  pause = (): Promise<void> => refuse('pause');
  unpause = (): Promise<void> => refuse('unpause');
  update = (): Promise<void> => refuse('update');
  startHealth = (): Promise<void> => refuse('startHealth');
  health = (): Promise<never> => refuse('health');
  stats = (): Promise<never> => refuse('stats');
  top = (): Promise<never> => refuse('top');
  resize = (): Promise<void> => refuse('resize');
  output = (): Promise<Readable> => refuse('output');
  input = (): Writable => {
    throw new EngineError('wrong-state', 'input: nothing runs in a machine that waits');
  };
  wait = (): Promise<SandboxExit> => refuse('wait');
}

function refuse(what: string): Promise<never> {
  return Promise.reject(new EngineError('wrong-state', `${what}: nothing runs in a machine that waits`));
}

/** Makes fake sandboxes, each with the runtime directory and the console that a shim makes; they outlive whoever asked for them. */
export class FakeLauncher implements SandboxLauncher {
  readonly launched: FakeSandbox[] = [];
  /** When each launch was asked for, failed ones too, in milliseconds. */
  readonly attemptedAtMs: number[] = [];
  /** Called before each launch; what it throws the launch throws. */
  before: (config: SandboxConfig) => Promise<void> = () => Promise.resolve();

  async launch(config: SandboxConfig): Promise<FakeSandbox> {
    this.attemptedAtMs.push(performance.now());
    await mkdir(config.runtimeDir, { recursive: true });
    await writeFile(join(config.stateDir, 'console.log'), `console of ${config.id}`);
    await this.before(config);
    const sandbox = new FakeSandbox(config);
    this.launched.push(sandbox);
    return sandbox;
  }

  async adopt(id: string, runtimeDir: string): Promise<FakeSandbox | undefined> {
    const found = this.launched.find((sandbox) => sandbox.id === id && sandbox.config.runtimeDir === runtimeDir);
    if (!found || found.isDead) return undefined;
    await access(runtimeDir);
    return found;
  }

  makeTemplate(): Promise<void> {
    return refuse('makeTemplate');
  }

  readExit(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  /** Those that nobody ended. */
  get living(): FakeSandbox[] {
    return this.launched.filter(({ state, isDead }) => state !== 'ended' && !isDead);
  }
}
