import { constants } from 'node:os';
import type { BulkheadClient } from '../../client/index.ts';

/** Signals a user or a supervisor sends to a foreground program. Not among them: KILL and STOP (nobody can catch them), CHLD, PIPE, URG (ours). */
const PROXIED: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGALRM', 'SIGCONT', 'SIGTSTP', 'SIGTTIN', 'SIGTTOU'];

/** Passes signals that arrive here on to the container, until disposed. */
export function proxySignals(client: BulkheadClient, container: string): Disposable {
  const handlers = PROXIED.map((name) => {
    const handler = (): void => {
      // A container that does not run yet, or no more, has no use for the signal.
      client.containers.kill(container, { signalName: String(constants.signals[name]) }).catch(() => {});
    };
    process.on(name, handler);
    return { name, handler };
  });
  return {
    [Symbol.dispose]: () => {
      for (const { name, handler } of handlers) process.removeListener(name, handler);
    },
  };
}
