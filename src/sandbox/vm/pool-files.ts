import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { shortId } from '../../core/ids.ts';
import type { Sandbox } from '../sandbox.ts';

/** Consoles of discarded machines that are kept. */
const DISCARDED_MAX = 4;

const recordSchema = z.object({
  id: z.string(),
  key: z.string(),
  vcpus: z.number().int(),
  memoryBytes: z.number().int(),
  uid: z.number().int(),
  runtimeDir: z.string(),
  cgroupPath: z.string(),
  tapName: z.string(),
  /** The image whose layers it has mounted. */
  image: z.string().optional(),
});
export type MachineRecord = z.infer<typeof recordSchema>;

/** A machine that waits, and where it is. Kept as `machine.json` in its directory, for the next daemon. */
export type PooledMachine = MachineRecord & { readonly sandbox: Sandbox };

/** The directories of machines that wait, one each; and the consoles of the last ones that did not come up. */
export class PoolFiles {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  directoryOf(id: string): string {
    return join(this.#directory, id);
  }

  /** Ids of the machines that have a directory. */
  async list(): Promise<string[]> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const entries = await readdir(this.#directory, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
  }

  /** The next daemon finds by it what this one has begun: it is written before the first effect. */
  async writeRecord(record: MachineRecord): Promise<void> {
    await mkdir(this.directoryOf(record.id), { recursive: true, mode: 0o700 });
    await writeFile(join(this.directoryOf(record.id), 'machine.json'), JSON.stringify(record));
  }

  async readRecord(id: string): Promise<MachineRecord | undefined> {
    try {
      return recordSchema.parse(JSON.parse(await readFile(join(this.directoryOf(id), 'machine.json'), 'utf8')));
    } catch {
      return undefined;
    }
  }

  async forget(id: string): Promise<void> {
    await rm(this.directoryOf(id), { recursive: true, force: true });
  }

  /** What a machine said that did not come up, for whoever looks for the reason. */
  async keepConsole(id: string): Promise<void> {
    const target = join(this.#directory, `discarded-${shortId(id)}.log`);
    await rename(join(this.directoryOf(id), 'console.log'), target).catch(() => undefined);
    const names = (await readdir(this.#directory)).filter((name) => name.startsWith('discarded-'));
    const aged = await Promise.all(
      names.map(async (name) => ({ name, mtimeMs: (await stat(join(this.#directory, name))).mtimeMs })),
    );
    const surplus = aged.sort((one, other) => other.mtimeMs - one.mtimeMs).slice(DISCARDED_MAX);
    await Promise.all(surplus.map(({ name }) => rm(join(this.#directory, name), { force: true })));
  }
}
