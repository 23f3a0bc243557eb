import { readFile } from 'node:fs/promises';
import { hasProcesses } from '../core/container-state.ts';
import { EngineError } from '../core/errors.ts';
import { processTable, type ProcessTable } from '../core/process-table.ts';
import type { Sandbox } from '../sandbox/sandbox.ts';
import type { ContainerStats } from '../wire/shim-usage.ts';
import { diskUsageBytes } from '../platform/disk-usage.ts';
import { isBeingRestarted } from './container-lifecycle.ts';
import type { ContainerRecord } from './container-record.ts';
import { containerPaths } from './container-view.ts';
import type { EngineContext } from './engine-context.ts';

/** What runs in containers and what they use. Each number is asked for when somebody wants it: nothing polls. */
export interface UsageService {
  /** `psArguments` are those of `ps`. */
  top(nameOrId: string, psArguments: string): Promise<ProcessTable>;
  /** Undefined for a container that does not run. */
  stats(nameOrId: string): Promise<ContainerStats | undefined>;
  /** Bytes on disk: of what the container wrote, and with its image's layers. */
  sizes(nameOrId: string): Promise<ContainerSizes>;
}

export interface ContainerSizes {
  readonly writtenBytes: number;
  readonly rootBytes: number;
}

type UsageContext = Pick<EngineContext, 'table' | 'images' | 'dataRoot'>;

export class ContainerUsage implements UsageService {
  readonly #context: UsageContext;
  readonly #sandboxOf: (record: ContainerRecord) => Sandbox;

  /** `sandboxOf` throws for a container that does not run. */
  constructor(context: UsageContext, sandboxOf: (record: ContainerRecord) => Sandbox) {
    this.#context = context;
    this.#sandboxOf = sandboxOf;
  }

  async top(nameOrId: string, psArguments: string): Promise<ProcessTable> {
    const record = this.#context.table.find(nameOrId);
    if (record.state.status === 'restarting') throw isBeingRestarted(record.id);
    if (!hasProcesses(record.state)) throw new EngineError('conflict', `container ${record.id} is not running`);
    const { readAtNs, memoryBytes, processes } = await this.#sandboxOf(record).top(record.id);
    // A guest has no users of its own; on the host's kernel the host's names are shown, as in Docker.
    const names = record.isolation === 'os' ? await hostUserNames() : new Map([[0, 'root']]);
    return processTable(psArguments, processes, {
      readAtNs,
      memoryBytes,
      userName: (uid) => names.get(uid) ?? String(uid),
    });
  }

  async stats(nameOrId: string): Promise<ContainerStats | undefined> {
    const record = this.#context.table.find(nameOrId);
    if (!hasProcesses(record.state)) return undefined;
    try {
      return await this.#sandboxOf(record).stats(record.id);
    } catch (error) {
      // It has ended between the question and the answer.
      if (error instanceof EngineError && ['wrong-state', 'not-found', 'unavailable'].includes(error.code))
        return undefined;
      throw error;
    }
  }

  async sizes(nameOrId: string): Promise<ContainerSizes> {
    const { images, dataRoot, table } = this.#context;
    const record = table.find(nameOrId);
    const writable = containerPaths(dataRoot, record.id).writablePath(record.isolation);
    const writtenBytes = await diskUsageBytes(writable);
    let imageBytes = 0;
    try {
      imageBytes = images.resolve(record.imageId).sizeBytes;
    } catch (error) {
      if (!(error instanceof EngineError && error.code === 'not-found')) throw error;
    }
    return { writtenBytes, rootBytes: writtenBytes + imageBytes };
  }
}

async function hostUserNames(): Promise<Map<number, string>> {
  const text = await readFile('/etc/passwd', 'utf8').catch(() => '');
  const entries = text.split('\n').flatMap((line): [number, string][] => {
    const [name = '', , uid = ''] = line.split(':');
    return /^\d+$/.test(uid) ? [[Number(uid), name]] : [];
  });
  // The first name of a number is its name.
  return new Map(entries.reverse());
}
