import { rm } from 'node:fs/promises';
import { isRunning, transition } from '../core/container-state.ts';
import { EngineError } from '../core/errors.ts';
import { diskUsageBytes } from '../platform/disk-usage.ts';
import { containerEvent } from './container-event.ts';
import type { ContainerLifecycle } from './container-lifecycle.ts';
import type { ContainerRecord } from './container-record.ts';
import { containerPaths } from './container-view.ts';
import type { EngineContext } from './engine-context.ts';
import type { KeyedLock } from './keyed-lock.ts';
import type { Waiters } from './waiters.ts';

export interface RemovalParts {
  readonly locks: KeyedLock;
  readonly waiters: Waiters;
  readonly lifecycle: ContainerLifecycle;
  /** Told of each container that is gone. */
  readonly afterRemoval: (record: ContainerRecord) => Promise<void>;
}

/** Takes containers away with everything that they have on disk. */
export class ContainerRemoval {
  readonly #context: EngineContext;
  readonly #parts: RemovalParts;

  constructor(context: EngineContext, parts: RemovalParts) {
    this.#context = context;
    this.#parts = parts;
  }

  async remove(nameOrId: string, options: { readonly force: boolean }): Promise<void> {
    const { lifecycle } = this.#parts;
    const record = await lifecycle.afterPending(nameOrId);
    if (isRunning(record.state)) {
      if (!options.force) throw isInUse(record);
      if (record.state.status === 'restarting') await lifecycle.cancelRestart(record.id);
      else await lifecycle.endForGood(record);
    }
    await this.removeEnded(record.id);
  }

  /** Removes every one that does not run; the bytes are those of the disk that are free again. */
  async prune(candidates: readonly string[]): Promise<{ deleted: string[]; reclaimedBytes: number }> {
    const { dataRoot, events } = this.#context;
    const removals = candidates.map(async (id) => {
      const bytes = await diskUsageBytes(containerPaths(dataRoot, id).stateDir);
      await this.removeEnded(id);
      return { id, bytes };
    });
    const outcomes = await Promise.allSettled(removals);
    const removed = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
    const reclaimedBytes = removed.reduce((sum, { bytes }) => sum + bytes, 0);
    events.publish({
      type: 'container',
      action: 'prune',
      actorId: '',
      attributes: { reclaimed: String(reclaimedBytes) },
    });
    return { deleted: removed.map(({ id }) => id), reclaimedBytes };
  }

  /**
   * A `--rm` container has ended: for everybody outside it is gone from now on, and nobody waits for what is left of it. `removeEnded` clears
   * that away, and its name is free only then.
   */
  retire(record: ContainerRecord): void {
    this.#context.table.retire(record.id);
    this.#context.events.publish(containerEvent(record, 'destroy'));
    this.#parts.waiters.removed(record.id);
  }

  /** Settles when no retired container has this name. */
  async nameFree(name: string): Promise<void> {
    const { table } = this.#context;
    for (let id = table.retiredOwner(name); id !== undefined; id = table.retiredOwner(name)) {
      await this.#parts.lifecycle.runner.gone(id).catch(() => undefined);
      await this.removeEnded(id);
    }
  }

  removeEnded(id: string): Promise<void> {
    const { locks, lifecycle, waiters } = this.#parts;
    return locks.run(id, async () => {
      const { table, events, dataRoot } = this.#context;
      if (!table.get(id)) return;
      const record = await lifecycle.settled(id);
      if (record.state.status !== 'removing') {
        const state = transition(record.state, { type: 'removalStarted' });
        if (!state)
          throw new EngineError(
            'conflict',
            `cannot remove container "/${record.name}": it has been started again; stop it first`,
          );
        table.update({ ...record, state });
      }
      await this.#removeFiles(id, containerPaths(dataRoot, id).stateDir);
      const isTold = table.isRetired(id);
      table.delete(id);
      lifecycle.forget(id);
      if (!isTold) events.publish(containerEvent(record, 'destroy'));
      waiters.removed(id);
      await this.#parts.afterRemoval(record);
    });
  }

  /** What cannot be removed stays known as dead: it can be tried again, and nothing on disk loses its owner. */
  async #removeFiles(id: string, stateDir: string): Promise<void> {
    const { table } = this.#context;
    try {
      await rm(stateDir, { recursive: true, force: true });
    } catch (thrown) {
      const error = `unable to remove filesystem for ${id}: ${thrown instanceof Error ? thrown.message : String(thrown)}`;
      const record = table.get(id);
      const state = record && transition(record.state, { type: 'removalFailed', error });
      if (record && state) table.update({ ...record, state });
      throw new EngineError('internal', error, { cause: thrown });
    }
  }
}

function isInUse(record: ContainerRecord): EngineError {
  const { name, state } = record;
  const procedure = `${state.status === 'paused' ? 'unpause and then ' : ''}stop the container before removing or force remove`;
  return new EngineError('conflict', `cannot remove container "/${name}": container is ${state.status}: ${procedure}`);
}
