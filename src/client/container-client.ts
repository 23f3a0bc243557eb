import type { Duplex, Readable } from 'node:stream';
import * as z from 'zod/mini';
import type { ContainerCreateRequest } from '../wire/docker/container-config.ts';
import type { ContainerUpdateRequest } from '../wire/docker/container-update.ts';
import {
  containerInspectSchema,
  containersPrunedSchema,
  containerSummarySchema,
  idAnswerSchema,
  statsSchema,
  topSchema,
  updatedSchema,
  waitAnswerSchema,
  type ContainerInspect,
  type ContainerSummary,
  type StatsAnswer,
  type TopAnswer,
  type WaitAnswer,
} from './answers.ts';
import { pathSegment, type ApiSession } from './api-session.ts';
import { encodeFilters, type CallOptions, type Filters } from './call-options.ts';

export interface AttachRequest extends CallOptions {
  readonly stdin?: boolean;
  readonly stdout?: boolean;
  readonly stderr?: boolean;
  /** Replay what was written so far first. */
  readonly logs?: boolean;
  /** Docker's notation, `ctrl-p,ctrl-q`. */
  readonly detachKeys?: string | undefined;
}

export interface LogsRequest extends CallOptions {
  readonly stdout?: boolean;
  readonly stderr?: boolean;
  readonly follow?: boolean;
  readonly timestamps?: boolean;
  readonly details?: boolean;
  /** A number of lines, or `all`. */
  readonly tail?: string | undefined;
  /** `SECONDS[.NANOSECONDS]` since 1970. */
  readonly since?: string | undefined;
  readonly until?: string | undefined;
}

export interface StopRequest extends CallOptions {
  /** Seconds until SIGKILL; negative waits for ever. */
  readonly timeoutSeconds?: number | undefined;
  readonly signalName?: string | undefined;
}

/** `/containers` of the API. `container` is a name, an id or a unique beginning of one. */
export class ContainerClient {
  readonly #session: ApiSession;

  constructor(session: ApiSession) {
    this.#session = session;
  }

  async list(
    options: CallOptions & { all?: boolean; limit?: number | undefined; size?: boolean; filters?: Filters } = {},
  ): Promise<ContainerSummary[]> {
    const { all, limit, size, filters, signal } = options;
    const query = { all, limit, size, filters: encodeFilters(filters) };
    return this.#session.json(z.array(containerSummarySchema), 'GET', '/containers/json', { query, signal });
  }

  async create(
    request: ContainerCreateRequest,
    options: CallOptions & { name?: string | undefined; platform?: string | undefined } = {},
  ): Promise<{ Id: string; Warnings: string[] }> {
    const { name, platform, signal } = options;
    return this.#session.json(idAnswerSchema, 'POST', '/containers/create', {
      query: { name, platform },
      body: { json: request },
      signal,
    });
  }

  async inspect(container: string, options: CallOptions & { size?: boolean } = {}): Promise<ContainerInspect> {
    const { size, signal } = options;
    return this.#session.json(containerInspectSchema, 'GET', place(container, 'json'), { query: { size }, signal });
  }

  /** Resolves with false when it was running already. */
  async start(container: string, options: CallOptions & { detachKeys?: string | undefined } = {}): Promise<boolean> {
    const { detachKeys, signal } = options;
    return (await this.#session.send('POST', place(container, 'start'), { query: { detachKeys }, signal })) !== 304;
  }

  /** Resolves with false when it was not running. */
  async stop(container: string, options: StopRequest = {}): Promise<boolean> {
    const query = { t: options.timeoutSeconds, signal: options.signalName };
    return (await this.#session.send('POST', place(container, 'stop'), { query, signal: options.signal })) !== 304;
  }

  async restart(container: string, options: StopRequest = {}): Promise<void> {
    const query = { t: options.timeoutSeconds, signal: options.signalName };
    await this.#session.send('POST', place(container, 'restart'), { query, signal: options.signal });
  }

  async kill(container: string, options: CallOptions & { signalName?: string | undefined } = {}): Promise<void> {
    await this.#session.send('POST', place(container, 'kill'), {
      query: { signal: options.signalName },
      signal: options.signal,
    });
  }

  async pause(container: string, options: CallOptions = {}): Promise<void> {
    await this.#session.send('POST', place(container, 'pause'), { signal: options.signal });
  }

  async unpause(container: string, options: CallOptions = {}): Promise<void> {
    await this.#session.send('POST', place(container, 'unpause'), { signal: options.signal });
  }

  /** Other limits and another restart policy; what is not named stays as it is. */
  async update(
    container: string,
    request: ContainerUpdateRequest,
    options: CallOptions = {},
  ): Promise<{ Warnings: string[] }> {
    return this.#session.json(updatedSchema, 'POST', place(container, 'update'), {
      body: { json: request },
      signal: options.signal,
    });
  }

  /** `psArguments` are those of `ps`; empty for `-ef`. */
  async top(container: string, psArguments = '', options: CallOptions = {}): Promise<TopAnswer> {
    const query = { ps_args: psArguments || undefined };
    return this.#session.json(topSchema, 'GET', place(container, 'top'), { query, signal: options.signal });
  }

  /** One sample and the one before it; takes a second. */
  async stats(container: string, options: CallOptions = {}): Promise<StatsAnswer> {
    const query = { stream: 'false' };
    return this.#session.json(statsSchema, 'GET', place(container, 'stats'), { query, signal: options.signal });
  }

  /** A sample a second, until the signal or the container's removal. */
  async followStats(
    container: string,
    options: CallOptions = {},
  ): Promise<AsyncGenerator<StatsAnswer, void, undefined>> {
    return this.#session.messages(statsSchema, 'GET', place(container, 'stats'), { signal: options.signal });
  }

  async rename(container: string, name: string, options: CallOptions = {}): Promise<void> {
    await this.#session.send('POST', place(container, 'rename'), { query: { name }, signal: options.signal });
  }

  /** Character cells. */
  async resize(container: string, size: { height: number; width: number }, options: CallOptions = {}): Promise<void> {
    await this.#session.send('POST', place(container, 'resize'), {
      query: { h: size.height, w: size.width },
      signal: options.signal,
    });
  }

  async remove(
    container: string,
    options: CallOptions & { force?: boolean; volumes?: boolean; link?: boolean } = {},
  ): Promise<void> {
    const { force, volumes, link, signal } = options;
    await this.#session.send('DELETE', place(container), { query: { force, v: volumes, link }, signal });
  }

  /**
   * Resolves as soon as the daemon is waiting, so that nothing that happens afterwards is missed; `result` settles with the exit.
   */
  async wait(
    container: string,
    options: CallOptions & { condition?: 'not-running' | 'next-exit' | 'removed' } = {},
  ): Promise<{ result: Promise<WaitAnswer> }> {
    const { condition, signal } = options;
    const messages = await this.#session.messages(waitAnswerSchema, 'POST', place(container, 'wait'), {
      query: { condition },
      signal,
    });
    const result = (async () => {
      for await (const answer of messages) return answer;
      throw new Error(`the daemon closed the connection while ${container} was waited for`);
    })();
    // The caller may look at the result much later; until then its failure is not "unhandled".
    result.catch(() => {});
    return { result };
  }

  /** A raw stream both ways. Without a terminal its output is multiplexed: see `demultiplex`. Ending it is the end of stdin. */
  async attach(container: string, options: AttachRequest = {}): Promise<Duplex> {
    const { stdin, stdout, stderr, logs, detachKeys, signal } = options;
    const query = { stream: true, stdin, stdout, stderr, logs, detachKeys };
    return (await this.#session.hijack(place(container, 'attach'), { query, signal })).stream;
  }

  /** Without a terminal the output is multiplexed: see `demultiplex`. */
  async logs(container: string, options: LogsRequest = {}): Promise<Readable> {
    const { signal, ...query } = options;
    return this.#session.stream('GET', place(container, 'logs'), { query, signal });
  }

  async prune(
    options: CallOptions & { filters?: Filters } = {},
  ): Promise<{ ContainersDeleted: string[]; SpaceReclaimed: number }> {
    const query = { filters: encodeFilters(options.filters) };
    return this.#session.json(containersPrunedSchema, 'POST', '/containers/prune', { query, signal: options.signal });
  }

  /** The daemon's JSON untouched, members in its order. */
  async inspectRaw(container: string, options: CallOptions & { size?: boolean } = {}): Promise<unknown> {
    return this.#session.raw(place(container, 'json'), { query: { size: options.size }, signal: options.signal });
  }
}

function place(container: string, action?: string): string {
  const path = `/containers/${pathSegment(container)}`;
  return action === undefined ? path : `${path}/${action}`;
}
