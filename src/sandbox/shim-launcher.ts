import { mkdir, open, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { EngineError, systemErrorCode } from '../core/errors.ts';
import { parseJson } from '../core/json.ts';
import { spawnDetached, type DetachedProcess } from '../platform/detached-process.ts';
import { killProcesses } from '../platform/process-list.ts';
import { exitFileSchema, readinessSchema, type SandboxConfig, type SandboxExit } from '../wire/shim.ts';
import { ShimClient, shimError } from './shim-client.ts';
import type { Sandbox, SandboxLauncher } from './sandbox.ts';

/** The protocol says that a shim is ready, or knows why not, well within this; a machine's boot is not part of it. */
const READY_TIMEOUT_MS = 20_000;
/** The shim waits 60 s for a machine to be warm, on the busiest host. */
const POOL_TIMEOUT_MS = 90_000;
/** The shim gives a machine 120 s to come up and be saved. */
const TEMPLATE_TIMEOUT_MS = 130_000;

/** Starts one shim process per sandbox. The shim is nobody's child that matters: it outlives the daemon. */
export class ShimLauncher implements SandboxLauncher {
  readonly #shimPath: string;

  constructor(options: { shimPath: string }) {
    this.#shimPath = options.shimPath;
  }

  async launch(config: SandboxConfig, signal?: AbortSignal): Promise<Sandbox> {
    await rm(join(config.stateDir, 'exit.json'), { force: true });
    // A pooled machine is ready when it waits, and its shim knows when that has taken too long.
    await this.#converse(config, config.pool ? POOL_TIMEOUT_MS : READY_TIMEOUT_MS, signal);
    return new ShimClient(config.id, socketPath(config.runtimeDir));
  }

  async makeTemplate(config: SandboxConfig, signal: AbortSignal): Promise<void> {
    await this.#converse(config, TEMPLATE_TIMEOUT_MS, signal);
  }

  /** Starts the shim and waits for its word of readiness. */
  async #converse(config: SandboxConfig, timeoutMs: number, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    await mkdir(config.runtimeDir, { recursive: true, mode: 0o700 });
    await mkdir(config.stateDir, { recursive: true, mode: 0o700 });
    const log = await open(join(config.stateDir, 'shim.log'), 'w', 0o600);
    let shim: DetachedProcess | undefined;
    const onAbort = (): void => shim?.kill();
    signal?.addEventListener('abort', onAbort);
    try {
      // The argument is for people and for the leak check: it says in the process list whose shim this is.
      shim = spawnDetached(this.#shimPath, [config.runtimeDir], log.fd);
      const answer = await shim.converse(JSON.stringify(config), timeoutMs);
      const readiness = readinessSchema.safeParse(parseJson(answer));
      if (readiness.success && 'ready' in readiness.data) return;
      if (readiness.success) throw shimError(answer);
      const tail = await readTail(join(config.stateDir, 'shim.log'));
      throw new EngineError(
        'internal',
        `the shim of sandbox ${config.id} ended before it was ready${tail && `: ${tail}`}`,
      );
    } catch (error) {
      // Whatever it is doing: without a connection to it nobody would ever end it.
      shim?.kill();
      await rm(config.runtimeDir, { recursive: true, force: true });
      throw error;
    } finally {
      signal?.removeEventListener('abort', onAbort);
      await log.close();
    }
  }

  async adopt(id: string, runtimeDir: string): Promise<Sandbox | undefined> {
    const client = new ShimClient(id, socketPath(runtimeDir));
    try {
      await client.status();
      return client;
    } catch (error) {
      // Only these say that nobody is there; anything else (no descriptors left, an overloaded host) says nothing of the shim.
      const cause = error instanceof EngineError ? systemErrorCode(error.cause) : '';
      if (cause !== 'ENOENT' && cause !== 'ECONNREFUSED') throw error;
      // One that was just being started, by a daemon that is dead now, would still come up and make things that nobody knows of.
      await killProcesses(this.#shimPath, runtimeDir);
      return undefined;
    }
  }

  async readExit(stateDir: string, containerId: string): Promise<SandboxExit | undefined> {
    try {
      const parsed = exitFileSchema.safeParse(parseJson(await readFile(join(stateDir, 'exit.json'), 'utf8')));
      return parsed.success ? parsed.data.containers[containerId] : undefined;
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return undefined;
      throw error;
    }
  }
}

function socketPath(runtimeDir: string): string {
  return join(runtimeDir, 'shim.sock');
}

async function readTail(path: string): Promise<string> {
  const text = await readFile(path, 'utf8').catch(() => '');
  return text.trim().slice(-500);
}
