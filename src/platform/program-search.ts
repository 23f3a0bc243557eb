import { readdir, readFile } from 'node:fs/promises';
import { readProcess, type ProcessIdentity } from './ffi/processes.ts';

/** The first process, other than this one, whose command line has an argument with this text in it. */
export async function findProgramByArgument(text: string): Promise<ProcessIdentity | undefined> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid);
  for (const pid of pids) {
    const args = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0');
    if (!args.slice(1).some((argument) => argument.includes(text))) continue;
    const facts = await readProcess({ pid: Number(pid) }).catch(() => undefined);
    if (facts) return { pid: facts.pid, startTimeTicks: facts.startTimeTicks };
  }
  return undefined;
}
