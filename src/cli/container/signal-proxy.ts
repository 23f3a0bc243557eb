import { constants } from 'node:os';
import type { BulkheadClient } from '../../client/index.ts';

/** Signals a user or a supervisor sends to a foreground program. Not among them: KILL and STOP (nobody can catch them), CHLD, PIPE, URG (ours). */
const PROXIED: readonly NodeJS.Signals[] = [
  'SIGINT',
  'SIGTERM',
  'SIGHUP',
  'SIGQUIT',
  'SIGUSR1',
  'SIGUSR2',
  'SIGALRM',
  'SIGCONT',
  'SIGTSTP',
  'SIGTTIN',
  'SIGTTOU',
];

/** So many INT or TERM end the CLI itself: the way out when daemon or container do not react. Docker has the same number. */
const FORCED_EXIT_COUNT = 3;

/** Passes signals that arrive here on to the container, until disposed. */
export function proxySignals(client: BulkheadClient, container: string): Disposable {
  let endings = 0;
  const handlers = PROXIED.map((name) => {
    const handler = (): void => {
      if (name === 'SIGINT' || name === 'SIGTERM') endings += 1;
      if (endings >= FORCED_EXIT_COUNT) {
        process.stderr.write('got 3 SIGTERM/SIGINTs, forcefully exiting\n');
        process.exit(1);
      }
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
