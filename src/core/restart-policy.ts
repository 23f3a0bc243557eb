/** When a container is started again by itself. Source: moby daemon/internal/restartmanager, docs "Start containers automatically". */
export type RestartPolicyName = 'no' | 'always' | 'unless-stopped' | 'on-failure';

export interface RestartPolicy {
  readonly name: RestartPolicyName;
  /** Of `on-failure`; 0 is no bound. */
  readonly maximumRetryCount: number;
}

/** The HostConfig's words; nothing set is `no`. They were checked when they came in. */
export function restartPolicy(
  asked:
    | { readonly Name?: string | null | undefined; readonly MaximumRetryCount?: number | null | undefined }
    | null
    | undefined,
): RestartPolicy {
  return { name: (asked?.Name || 'no') as RestartPolicyName, maximumRetryCount: asked?.MaximumRetryCount ?? 0 };
}

export interface EndFacts {
  readonly exitCode: number;
  /** How often its policy has started it since it was last started by hand. */
  readonly restartCount: number;
  /** Stopped or killed by a client since its last start. */
  readonly isStoppedByHand: boolean;
}

/** Whether a container that ended like this is started again, by what its policy says. */
export function wantsRestart(policy: RestartPolicy, facts: EndFacts): boolean {
  switch (policy.name) {
    case 'no':
      return false;
    case 'always':
      return true;
    case 'unless-stopped':
      return !facts.isStoppedByHand;
    case 'on-failure':
      return facts.exitCode !== 0 && (policy.maximumRetryCount === 0 || facts.restartCount < policy.maximumRetryCount);
  }
}

const FIRST_DELAY_MS = 100;
const LONGEST_DELAY_MS = 60_000;
/** A run that lasted this long was a success: the next delay is the first one again. */
const SUCCESSFUL_RUN_MS = 10_000;

/** How long to wait before the next start: it doubles from restart to restart. `previousMs` is undefined for the first. */
export function nextDelayMs(previousMs: number | undefined, ranForMs: number): number {
  if (previousMs === undefined || ranForMs >= SUCCESSFUL_RUN_MS) return FIRST_DELAY_MS;
  return Math.min(previousMs * 2, LONGEST_DELAY_MS);
}
