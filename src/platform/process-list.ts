import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { systemErrorCode } from '../core/errors.ts';
import { readProcess, type ProcessIdentity } from './ffi/processes.ts';

const GONE_ATTEMPTS = 100;
const GONE_DELAY_MS = 10;

/** The first process, other than this one, whose command line has an argument with this text in it. */
export async function findProgramByArgument(text: string): Promise<ProcessIdentity | undefined> {
  for (const pid of await otherProcesses()) {
    const [, ...args] = await commandLine(pid);
    if (!args.some((argument) => argument.includes(text))) continue;
    const facts = await readProcess({ pid }).catch(() => undefined);
    if (facts) return { pid: facts.pid, startTimeTicks: facts.startTimeTicks };
  }
  return undefined;
}

/** Kills the processes that run `program` with this first argument, and waits until they are gone. Both are paths that only we use together. */
export async function killProcesses(program: string, argument: string): Promise<void> {
  const isOne = async (pid: number): Promise<boolean> => {
    const [first, second] = await commandLine(pid);
    return first === program && second === argument;
  };
  for (const pid of await otherProcesses()) {
    if (!(await isOne(pid))) continue;
    kill(pid);
    for (let attempt = 0; attempt < GONE_ATTEMPTS && (await isOne(pid)); attempt++) await delay(GONE_DELAY_MS);
  }
}

async function otherProcesses(): Promise<number[]> {
  const names = await readdir('/proc');
  return names.filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid).map(Number);
}

/** Empty for a process that is gone. */
async function commandLine(pid: number): Promise<string[]> {
  return (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0');
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (systemErrorCode(error) !== 'ESRCH') throw error;
  }
}
