import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { z } from 'zod';
import { EngineError } from '../core/errors.ts';
import { parseJson } from '../core/json.ts';
import { newId } from '../core/ids.ts';
import type { MachineClass } from '../core/resources.ts';
import { hashSparse } from '../platform/ffi/files.ts';
import { PROTOCOL_GENERATION, type MachineTemplate, type SandboxConfig } from '../wire/shim.ts';
import type { MachineHost } from './machine-host.ts';
import { planMachine, removeRemains, reserveMachine, type SandboxPlaces } from './machine-place.ts';
import { className, factsKey, readTemplateFacts, templateName, type TemplateFacts } from './template-key.ts';

/** More sizes than this are not kept saved: each takes some 80 MiB of disk. */
const TEMPLATES_MAX = 8;

/** A host that was too busy for it may be so no longer. */
const RETRY_MS = 60_000;

const manifestSchema = z.object({ ramSha256: z.string(), stateSha256: z.string(), createdAtMs: z.number() });

export interface MachineTemplatesOptions {
  /** Where they are kept: one directory each. */
  readonly directory: string;
  readonly places: SandboxPlaces;
  readonly machine: MachineHost;
  readonly shimPath: string;
  readonly logger: Logger;
  /** Boots a machine and saves it (the shim's wall `template`). */
  readonly make: (config: SandboxConfig, signal: AbortSignal) => Promise<void>;
}

/**
 * Saved machines, one for each size that was wanted. A template is used only if its content is what was saved, on this host, by these programs;
 * everything else is removed and made again.
 */
export class MachineTemplates {
  readonly #options: MachineTemplatesOptions;
  /** Read when they are first asked for. */
  #facts: Promise<TemplateFacts> | undefined;
  /** Present from the first wish on. */
  readonly #templates = new Map<string, WantedTemplate>();
  readonly #ending = new AbortController();
  /** One machine boots at a time: the others' clients wait less in all. */
  #queue: Promise<unknown> = Promise.resolve();

  constructor(options: MachineTemplatesOptions) {
    this.#options = options;
  }

  /** What all templates of this host and these programs have in common. */
  async key(): Promise<string> {
    const { machine, shimPath } = this.#options;
    this.#facts ??= readTemplateFacts(machine.config(), shimPath);
    return factsKey(await this.#facts);
  }

  /** The template of a size if it stands. One that is being checked is waited for, one that is being made is not. */
  async find(size: MachineClass): Promise<MachineTemplate | undefined> {
    const wanted = this.#templates.get(className(size));
    if (!wanted) return undefined;
    const known = (await wanted.checked) ?? (await Promise.race([wanted.made, Promise.resolve(undefined)]));
    if (!known) return undefined;
    if (await isUnchanged(known)) return known.files;
    this.reject(size);
    return undefined;
  }

  /** Verifies or makes the template of a size; undefined if that is not possible here, for which the log has the reason. */
  async ensure(size: MachineClass): Promise<MachineTemplate | undefined> {
    const name = className(size);
    let wanted = this.#templates.get(name);
    if (wanted && (await wanted.made) === undefined && performance.now() > wanted.retryAfterMs) wanted = undefined;
    if (!wanted) {
      const checked = this.#queue.then(() => this.#check(size));
      const made = checked.then((found) => found ?? this.#make(size));
      this.#queue = made;
      const retry: WantedTemplate = { checked, made, retryAfterMs: Infinity };
      void made.then(() => (retry.retryAfterMs = performance.now() + RETRY_MS));
      wanted = retry;
      this.#templates.set(name, wanted);
    }
    return (await wanted.made)?.files;
  }

  /** A machine could not be made from it: it is made anew when it is wanted next. */
  reject(size: MachineClass): void {
    this.#options.logger.warn({ size: className(size) }, 'a saved machine is damaged; it will be made again');
    this.#templates.delete(className(size));
    const removed = this.#queue.then(async () => {
      await rm(await this.#path(size), { recursive: true, force: true });
    });
    this.#queue = removed.catch(() => undefined);
  }

  /** Removes what was begun and not finished, and what other programs or another kernel made. What is wished for meanwhile comes after it. */
  sweep(): Promise<void> {
    const swept = this.#queue.then(() => this.#sweep());
    this.#queue = swept.catch(() => undefined);
    return swept;
  }

  async #sweep(): Promise<void> {
    const { directory, logger } = this.#options;
    let key: string;
    try {
      key = await this.key();
    } catch (error) {
      // Nor can any be made; the walls need none.
      logger.warn({ err: error }, 'cannot tell which saved machines are of these programs; none is used');
      return;
    }
    await mkdir(directory, { recursive: true, mode: 0o700 });
    for (const name of await readdir(directory)) {
      const path = join(directory, name);
      if (name.endsWith('.new')) await this.#clearUnfinished(path);
      if (!name.startsWith(`${key}-`) || name.endsWith('.new')) await rm(path, { recursive: true, force: true });
    }
  }

  /** The daemon died while this one was made: its shim may still be at it. */
  async #clearUnfinished(path: string): Promise<void> {
    const text = await readFile(join(path, SANDBOX_FILE), 'utf8').catch(() => '');
    const sandbox = sandboxFileSchema.safeParse(parseJson(text));
    if (!sandbox.success) return;
    await removeRemains(sandbox.data);
  }

  /** Settles when nothing is being made. */
  async settle(): Promise<void> {
    await this.#queue;
  }

  /** What is being made is given up: the daemon is told to end. */
  async close(): Promise<void> {
    this.#ending.abort();
    await this.settle();
  }

  async #check(size: MachineClass): Promise<KnownTemplate | undefined> {
    try {
      return await verify(await this.#path(size));
    } catch (error) {
      this.#options.logger.warn({ err: error, size: className(size) }, 'a saved machine cannot be read');
      return undefined;
    }
  }

  /** Undefined if it cannot be made here; the log says why. */
  async #make(size: MachineClass): Promise<KnownTemplate | undefined> {
    const { logger } = this.#options;
    try {
      await this.#keepOnly(TEMPLATES_MAX - 1);
      const begun = performance.now();
      await this.#build(await this.#path(size), size);
      const ms = Math.round(performance.now() - begun);
      logger.info({ size: className(size), ms }, 'saved a machine to start others from');
      return await verify(await this.#path(size));
    } catch (error) {
      if (!this.#ending.signal.aborted)
        logger.warn({ err: error, size: className(size) }, 'no machine could be saved; machines of this size boot');
      return undefined;
    }
  }

  async #path(size: MachineClass): Promise<string> {
    return join(this.#options.directory, templateName(await this.key(), size));
  }

  async #build(path: string, size: MachineClass): Promise<void> {
    const { machine, places, make } = this.#options;
    const id = newId();
    const unfinished = `${path}.new`;
    await rm(unfinished, { recursive: true, force: true });
    await rm(path, { recursive: true, force: true });
    await mkdir(unfinished, { recursive: true, mode: 0o700 });
    const files = filesOf(unfinished);
    const place = reserveMachine(machine, id, places);
    const { runtimeDir, cgroupPath } = place;
    try {
      // Before the first effect, so that what a dying daemon leaves on the host is found by the next one.
      await writeFile(join(unfinished, SANDBOX_FILE), JSON.stringify({ runtimeDir, cgroupPath }));
      const config: SandboxConfig = {
        generation: PROTOCOL_GENERATION,
        id,
        runtimeDir,
        stateDir: unfinished,
        hostname: 'template',
        ports: [],
        wall: 'template',
        machine: planMachine(machine.config(), size, place, files),
      };
      await make(config, this.#ending.signal);
      const [ram, state] = await Promise.all([hashSparse(files.ramPath), hashSparse(files.statePath)]);
      const manifest = { ramSha256: ram.sha256, stateSha256: state.sha256, createdAtMs: Date.now() };
      await writeFile(join(unfinished, 'manifest.json'), JSON.stringify(manifest), { flush: true });
      await rm(join(unfinished, SANDBOX_FILE), { force: true });
      await rename(unfinished, path);
    } catch (error) {
      await rm(unfinished, { recursive: true, force: true });
      throw error;
    } finally {
      await removeRemains(place);
      machine.releaseUid(place.uid);
    }
  }

  /** Removes the ones that were made longest ago. A clone that runs keeps its files by having them open. */
  async #keepOnly(count: number): Promise<void> {
    const { directory } = this.#options;
    const names = await readdir(directory).catch(() => []);
    const aged = await Promise.all(
      names.map(async (name) => ({ name, mtimeMs: (await stat(join(directory, name))).mtimeMs })),
    );
    const surplus = aged.sort((one, other) => other.mtimeMs - one.mtimeMs).slice(count);
    for (const { name } of surplus) {
      await rm(join(directory, name), { recursive: true, force: true });
      this.#templates.delete(name.slice(name.indexOf('-') + 1));
    }
  }
}

/** In a directory that is not finished: what its making has on the host. */
const SANDBOX_FILE = 'sandbox.json';
const sandboxFileSchema = z.object({ runtimeDir: z.string(), cgroupPath: z.string() });

interface WantedTemplate {
  /** What was found on disk. */
  readonly checked: Promise<KnownTemplate | undefined>;
  /** That, or what was made. */
  readonly made: Promise<KnownTemplate | undefined>;
  /** When another try is worth it if this one fails (node: performance.now). */
  retryAfterMs: number;
}

/** A template whose content was checked, and how its files looked then. */
interface KnownTemplate {
  readonly files: MachineTemplate;
  readonly looks: string;
}

function filesOf(directory: string): MachineTemplate {
  return { ramPath: join(directory, 'ram'), statePath: join(directory, 'state') };
}

/** Undefined if there is none or its content is not what was saved. */
async function verify(path: string): Promise<KnownTemplate | undefined> {
  const files = filesOf(path);
  let text: string;
  try {
    text = await readFile(join(path, 'manifest.json'), 'utf8');
  } catch {
    return undefined;
  }
  const manifest = manifestSchema.safeParse(parseJson(text));
  if (!manifest.success) return undefined;
  const looks = await looksOf(files);
  const [ram, state] = await Promise.all([hashSparse(files.ramPath), hashSparse(files.statePath)]).catch(
    (error: unknown) => {
      if (error instanceof EngineError) return [undefined, undefined];
      throw error;
    },
  );
  const isWhole = ram?.sha256 === manifest.data.ramSha256 && state?.sha256 === manifest.data.stateSha256;
  return isWhole && looks !== undefined ? { files, looks } : undefined;
}

async function isUnchanged({ files, looks }: KnownTemplate): Promise<boolean> {
  return (await looksOf(files)) === looks;
}

/** Whatever writes to a file changes this. */
async function looksOf({ ramPath, statePath }: MachineTemplate): Promise<string | undefined> {
  try {
    const facts = await Promise.all([ramPath, statePath].map((path) => stat(path, { bigint: true })));
    return facts.map(({ ino, size, mtimeNs, ctimeNs }) => `${ino} ${size} ${mtimeNs} ${ctimeNs}`).join();
  } catch {
    return undefined;
  }
}
