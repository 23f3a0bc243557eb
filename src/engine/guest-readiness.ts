import { EngineError } from '../core/errors.ts';
import type { RunningGuest } from './guest-runner.ts';
import type { LaunchProgress } from './guest-service.ts';

export interface ReadinessOptions {
  readonly name: string;
  readonly guest: RunningGuest;
  readonly seconds: number;
  readonly onProgress: LaunchProgress;
  readonly signal: AbortSignal;
}

/** What the first boot came to; without cloud-init in the guest there is nothing to tell. */
export interface Readiness {
  readonly cloudInit: { readonly status: string; readonly detail: string } | undefined;
}

const MAXIMUM_DETAIL_CHARACTERS = 4000;

/**
 * Waits until the guest's agent answers and cloud-init is done. `ended` if the guest ended first. What cloud-init failed in is part of the
 * result: the guest is up, and the user must know.
 */
export async function waitUntilReady(options: ReadinessOptions): Promise<Readiness | 'ended'> {
  const { name, guest, seconds, onProgress, signal } = options;
  const { machine } = guest;
  const timeout = AbortSignal.timeout(seconds * 1000);
  const stop = AbortSignal.any([signal, timeout]);
  onProgress('boot', `booting; watch it with: bulkhead vm console ${name}`);
  const work = (async (): Promise<Readiness> => {
    await machine.agentOpened(stop);
    await guest.agent.ping();
    onProgress('cloud-init', 'the agent answers; waiting for cloud-init');
    const cloudInit = await readCloudInit(guest, stop);
    if (cloudInit)
      onProgress('cloud-init', `cloud-init: ${cloudInit.status}${cloudInit.detail && `: ${cloudInit.detail}`}`);
    return { cloudInit };
  })();
  const ended = machine.ended.then(() => 'ended' as const);
  try {
    return await Promise.race([work, ended]);
  } catch (error) {
    if (!timeout.aborted || signal.aborted) throw error;
    throw new EngineError(
      'timed-out',
      `guest ${name} runs, but was not ready within ${seconds} s; look at it with: bulkhead vm console ${name}, or wait longer with --timeout`,
      { cause: error },
    );
  } finally {
    work.catch(() => undefined);
    ended.catch(() => undefined);
  }
}

async function readCloudInit(guest: RunningGuest, signal: AbortSignal): Promise<Readiness['cloudInit']> {
  try {
    const result = await guest.agent.exec({ path: 'cloud-init', args: ['status', '--wait', '--long'] }, signal);
    const text = result.stdout.toString('utf8').slice(0, MAXIMUM_DETAIL_CHARACTERS);
    const status = /^status: *(\S+)/m.exec(text)?.[1] ?? 'unknown';
    const detail = /^detail:\s*([\s\S]*)/m.exec(text)?.[1]?.trim() ?? '';
    return { status, detail: status === 'done' ? '' : detail.replaceAll(/\s*\n\s*/g, '; ') };
  } catch (error) {
    // The agent could not start the program: the guest has no cloud-init.
    if (error instanceof EngineError && error.code === 'invalid-argument') return undefined;
    throw error;
  }
}
