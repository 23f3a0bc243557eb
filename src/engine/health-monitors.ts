import { EngineError } from '../core/errors.ts';
import { newId } from '../core/ids.ts';
import type { Sandbox } from '../sandbox/sandbox.ts';
import type { HealthReport } from '../wire/shim-health.ts';
import { containerEvent } from './container-event.ts';
import type { ContainerRecord } from './container-record.ts';
import type { EngineContext } from './engine-context.ts';
import { healthCommand, planHealthCheck } from './health-plan.ts';

const STARTING: HealthReport = { sequence: 0, status: 'starting', failingStreak: 0, log: [] };

/**
 * What is known of the health of containers. The probes are the shims' business; here one request per checked container waits for the next
 * report, so that a daemon with nothing to hear does nothing.
 */
export class HealthMonitors {
  readonly #context: EngineContext;
  readonly #reports = new Map<string, HealthReport>();
  readonly #ended = new AbortController();

  constructor(context: EngineContext) {
    this.#context = context;
  }

  /** Undefined for a container that is not checked, or has not been started by this daemon or an earlier one that it took over from. */
  report(id: string): HealthReport | undefined {
    return this.#reports.get(id);
  }

  /** A container runs: from its start on, or again for this daemon. */
  watch(record: ContainerRecord, sandbox: Sandbox): void {
    const { id } = record;
    this.#reports.delete(id);
    const check = planHealthCheck(record, this.#context.hostCapabilities);
    if (!check) return;
    this.#reports.set(id, STARTING);
    this.#follow(record, sandbox, () => sandbox.startHealth(id, check)).catch((error: unknown) => {
      if (!this.#ended.signal.aborted) {
        this.#context.logger.warn({ err: error, container: id }, 'lost the health checks of a container');
      }
    });
  }

  /** It is removed: nothing is remembered of it. */
  forget(id: string): void {
    this.#reports.delete(id);
  }

  /** The daemon ends; the checks go on. */
  detach(): void {
    this.#ended.abort();
  }

  async #follow(record: ContainerRecord, sandbox: Sandbox, start: () => Promise<void>): Promise<void> {
    const { id } = record;
    try {
      await start();
      // The first answer comes at once: an earlier daemon may have told of it already.
      let known = await sandbox.health(id, undefined, this.#ended.signal);
      this.#reports.set(id, known);
      for (;;) {
        const next = await sandbox.health(id, known.sequence, this.#ended.signal);
        this.#tell(id, known, next);
        known = next;
      }
    } catch (error) {
      // Its end ends the checks. As in Docker, what does not run is not healthy.
      const last = this.#reports.get(id);
      if (last && !this.#ended.signal.aborted) this.#reports.set(id, { ...last, status: 'unhealthy' });
      const isOver = error instanceof EngineError && ['wrong-state', 'not-found', 'unavailable'].includes(error.code);
      if (!isOver) throw error;
    }
  }

  /** State before event, as everywhere. */
  #tell(id: string, known: HealthReport, next: HealthReport): void {
    const { events, table } = this.#context;
    const record = table.get(id);
    if (!record) return;
    this.#reports.set(id, next);
    const command = (healthCommand(record) ?? []).join(' ');
    for (const probe of next.log.filter(({ number }) => number > known.sequence)) {
      const execID = newId();
      events.publish(containerEvent(record, `exec_create: ${command}`, { execID }));
      events.publish(containerEvent(record, `exec_start: ${command}`, { execID }));
      events.publish(containerEvent(record, 'exec_die', { execID, exitCode: String(probe.exitCode) }));
    }
    if (next.status !== known.status) events.publish(containerEvent(record, `health_status: ${next.status}`));
  }
}
