import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { systemErrorCode } from '../core/errors.ts';

const GONE_ATTEMPTS = 100;
const GONE_DELAY_MS = 10;

/** Kills the processes that run `program` with this first argument, and waits until they are gone. Both are paths that only we use together. */
export async function killProcesses(program: string, argument: string): Promise<void> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  await Promise.all(
    pids.map(async (pid) => {
      if (await isRunning(pid, program, argument)) await killAndWait(pid, program, argument);
    }),
  );
}

async function killAndWait(pid: number, program: string, argument: string): Promise<void> {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (systemErrorCode(error) !== 'ESRCH') throw error;
  }
  for (let attempt = 0; attempt < GONE_ATTEMPTS && (await isRunning(pid, program, argument)); attempt++)
    await delay(GONE_DELAY_MS);
}

async function isRunning(pid: number, program: string, argument: string): Promise<boolean> {
  const [first, second] = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0');
  return first === program && second === argument;
}
