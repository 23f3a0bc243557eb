import { Agent, request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http';
import { PassThrough, type Readable, type Writable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import type { z } from 'zod';
import { EngineError, systemErrorCode, type ErrorCode } from '../core/errors.ts';
import { parseJson } from '../core/json.ts';
import {
  exitSchema,
  failureSchema,
  sandboxStatusSchema,
  startedSchema,
  type Assignment,
  type CreateContainer,
  type CreateProcess,
  type SandboxExit,
  type SandboxStatus,
  type UpdateContainer,
} from '../wire/shim.ts';
import { healthReportSchema, type HealthCheck, type HealthReport } from '../wire/shim-health.ts';
import { containerStatsSchema, processListSchema, type ContainerStats, type ProcessList } from '../wire/shim-usage.ts';
import type { OutputOptions, Sandbox } from './sandbox.ts';

const CODES: Readonly<Record<string, ErrorCode>> = {
  'invalid-request': 'invalid-argument',
  'not-found': 'not-found',
  'wrong-state': 'wrong-state',
  'command-not-found': 'command-not-found',
  'command-not-executable': 'command-not-executable',
  'no-such-user': 'invalid-argument',
  'bad-working-directory': 'invalid-argument',
  'port-in-use': 'conflict',
  'resource-exhausted': 'resource-exhausted',
  'limit-exceeded': 'limit-exceeded',
  'machine-failed': 'internal',
  'timed-out': 'timed-out',
};

/** A failure as the shim put it, in the engine's terms; the shim's own code stays in `details.shimCode`. */
export function shimError(text: string): EngineError {
  const parsed = failureSchema.safeParse(parseJson(text));
  if (!parsed.success)
    return new EngineError('internal', `the sandbox's shim answered with an unreadable error: ${text.slice(0, 200)}`);
  const { code, message } = parsed.data;
  return new EngineError(CODES[code] ?? 'internal', message, { details: { shimCode: code } });
}

/** The sandbox protocol over the shim's unix socket. Each stream is a connection of its own, so flow control is the kernel's. */
export class ShimClient implements Sandbox {
  readonly id: string;
  readonly #socketPath: string;
  readonly #agent = new Agent({ keepAlive: true, maxFreeSockets: 4 });

  constructor(id: string, socketPath: string) {
    this.id = id;
    this.#socketPath = socketPath;
  }

  status(): Promise<SandboxStatus> {
    return this.#json('GET', '/v1/sandbox', undefined, sandboxStatusSchema);
  }

  async assign(assignment: Assignment): Promise<void> {
    await this.#call('POST', '/v1/sandbox/assign', assignment);
  }

  async createContainer(containerId: string, body: CreateContainer): Promise<void> {
    await this.#call('POST', `/v1/containers/${containerId}`, body);
  }

  async createProcess(containerId: string, process: string, body: CreateProcess): Promise<void> {
    await this.#call('POST', processPath(containerId, process), body);
  }

  start(containerId: string, process: string): Promise<{ pid: number }> {
    return this.#json('POST', `${processPath(containerId, process)}/start`, undefined, startedSchema);
  }

  async kill(containerId: string, process: string, signal: number): Promise<void> {
    await this.#call('POST', `${processPath(containerId, process)}/kill`, { signal });
  }

  async pause(containerId: string): Promise<void> {
    await this.#call('POST', `/v1/containers/${containerId}/pause`, undefined);
  }

  async unpause(containerId: string): Promise<void> {
    await this.#call('POST', `/v1/containers/${containerId}/unpause`, undefined);
  }

  async update(containerId: string, body: UpdateContainer): Promise<void> {
    await this.#call('POST', `/v1/containers/${containerId}/update`, body);
  }

  async startHealth(containerId: string, check: HealthCheck): Promise<void> {
    await this.#call('POST', `/v1/containers/${containerId}/health`, check);
  }

  health(containerId: string, after: number | undefined, signal: AbortSignal): Promise<HealthReport> {
    const query = after === undefined ? '' : `?after=${after}`;
    return this.#json('GET', `/v1/containers/${containerId}/health${query}`, undefined, healthReportSchema, signal);
  }

  stats(containerId: string): Promise<ContainerStats> {
    return this.#json('GET', `/v1/containers/${containerId}/stats`, undefined, containerStatsSchema);
  }

  top(containerId: string): Promise<ProcessList> {
    return this.#json('GET', `/v1/containers/${containerId}/top`, undefined, processListSchema);
  }

  async resize(containerId: string, process: string, size: { height: number; width: number }): Promise<void> {
    await this.#call('POST', `${processPath(containerId, process)}/resize`, size);
  }

  async output(containerId: string, process: string, options: OutputOptions): Promise<Readable> {
    const query = new URLSearchParams({ stdout: options.stdout ? '1' : '0', stderr: options.stderr ? '1' : '0' });
    if (options.from === 'start') query.set('from', '0');
    const path = `${processPath(containerId, process)}/output?${query.toString()}`;
    return await this.#respond({ method: 'GET', path, signal: options.signal, agent: false }, undefined);
  }

  input(containerId: string, process: string, options: { keepOpen: boolean }): Writable {
    const body = new PassThrough({ highWaterMark: 256 * 1024 });
    const path = `${processPath(containerId, process)}/stdin${options.keepOpen ? '?keep=1' : ''}`;
    // A process that ended or closed its stdin ends the request early: for the writer that is a closed pipe.
    this.#respond(
      { method: 'POST', path, agent: false, headers: { 'content-type': 'application/octet-stream' } },
      body,
    ).then(
      (answer) => answer.resume(),
      (error: unknown) => body.destroy(error instanceof Error ? error : undefined),
    );
    return body;
  }

  wait(containerId: string, process: string, signal: AbortSignal): Promise<SandboxExit> {
    return this.#json('GET', `${processPath(containerId, process)}/wait`, undefined, exitSchema, signal);
  }

  async stop(deadlineMs: number): Promise<void> {
    await this.#call('POST', '/v1/sandbox/stop', { deadlineMs });
  }

  async release(): Promise<SandboxStatus['phases']> {
    try {
      return (await this.#json('POST', '/v1/sandbox/release', undefined, sandboxStatusSchema)).phases;
    } catch (error) {
      if (!(error instanceof EngineError && error.code === 'unavailable')) throw error;
      return [];
    } finally {
      this.#agent.destroy();
    }
  }

  async #json<T extends z.ZodType>(
    method: string,
    path: string,
    body: object | undefined,
    schema: T,
    signal?: AbortSignal,
  ): Promise<z.infer<T>> {
    const text = await this.#call(method, path, body, signal);
    const parsed = schema.safeParse(parseJson(text));
    if (parsed.success) return parsed.data;
    throw new EngineError(
      'internal',
      `sandbox ${this.id}: the shim's answer to ${method} ${path} is not of the protocol`,
      {
        cause: parsed.error,
      },
    );
  }

  async #call(method: string, path: string, body: object | undefined, signal?: AbortSignal): Promise<string> {
    const options: RequestOptions = { method, path, agent: this.#agent, ...(signal ? { signal } : {}) };
    const answer = await this.#respond(options, body === undefined ? undefined : JSON.stringify(body));
    return (await buffer(answer)).toString('utf8');
  }

  /** The answer once its headers are here; a failure becomes the error that it describes. */
  #respond(options: RequestOptions, body: string | Readable | undefined): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const outgoing = httpRequest({ ...options, socketPath: this.#socketPath }, (answer) => {
        if ((answer.statusCode ?? 500) < 400) {
          resolve(answer);
          return;
        }
        buffer(answer).then((text) => reject(shimError(text.toString('utf8'))), reject);
      });
      outgoing.on('error', (error) => reject(this.#connectionError(error)));
      if (typeof body === 'string') {
        outgoing.setHeader('content-type', 'application/json');
        outgoing.end(body);
      } else if (body) {
        body.pipe(outgoing);
        // The writer went away before its end: the shim is to know, and not to wait for more.
        body.once('close', () => {
          if (!body.readableEnded) outgoing.destroy();
        });
      } else {
        outgoing.end();
      }
    });
  }

  #connectionError(error: Error): Error {
    if (error.name === 'AbortError') return error;
    const code = systemErrorCode(error);
    return new EngineError('unavailable', `sandbox ${this.id}: its shim does not answer (${code || error.message})`, {
      cause: error,
    });
  }
}

function processPath(containerId: string, process: string): string {
  return `/v1/containers/${containerId}/processes/${process}`;
}
