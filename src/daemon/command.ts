import { notifySupervisor } from '../platform/supervisor.ts';
import { Daemon } from './daemon.ts';
import { parseDaemonOptions } from './daemon-options.ts';

/** `bulkhead daemon …`: in the foreground until SIGTERM or SIGINT. */
export async function daemonCommand(argv: readonly string[]): Promise<void> {
  const settings = parseDaemonOptions(argv);
  const stopped = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => stopped.abort());
  const daemon = await Daemon.start(settings, stopped.signal);
  for (const address of daemon.addresses) process.stdout.write(`API listen on ${address}\n`);
  await notifySupervisor('READY=1');
  if (!stopped.signal.aborted)
    await new Promise((resolve) => stopped.signal.addEventListener('abort', resolve, { once: true }));
  await notifySupervisor('STOPPING=1');
  await daemon.stop();
}
