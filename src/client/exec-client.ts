import type { Duplex } from 'node:stream';
import type { ExecCreateRequest } from '../wire/docker/exec.ts';
import { execInspectSchema, idAnswerSchema, type ExecInspect } from './answers.ts';
import { pathSegment, type ApiSession } from './api-session.ts';
import type { CallOptions } from './call-options.ts';

export interface ExecStartRequest extends CallOptions {
  readonly tty?: boolean;
  /** Height and width, character cells. */
  readonly consoleSize?: readonly [number, number] | undefined;
}

/** Further processes in running containers: `/containers/{id}/exec` and `/exec` of the API. */
export class ExecClient {
  readonly #session: ApiSession;

  constructor(session: ApiSession) {
    this.#session = session;
  }

  /** Nothing runs before the start. */
  async create(container: string, request: ExecCreateRequest, options: CallOptions = {}): Promise<{ Id: string }> {
    return this.#session.json(idAnswerSchema, 'POST', `/containers/${pathSegment(container)}/exec`, {
      body: { json: request },
      signal: options.signal,
    });
  }

  /** A raw stream both ways, as of `containers.attach`. It ends when the exit code is known. */
  async start(id: string, options: ExecStartRequest = {}): Promise<Duplex> {
    const { tty = false, consoleSize, signal } = options;
    const json = { Detach: false, Tty: tty, ...(consoleSize ? { ConsoleSize: consoleSize } : {}) };
    return (await this.#session.hijack(place(id, 'start'), { body: { json }, signal })).stream;
  }

  async startDetached(id: string, options: ExecStartRequest = {}): Promise<void> {
    const { tty = false, signal } = options;
    await this.#session.send('POST', place(id, 'start'), { body: { json: { Detach: true, Tty: tty } }, signal });
  }

  /** Character cells. */
  async resize(id: string, size: { height: number; width: number }, options: CallOptions = {}): Promise<void> {
    const query = { h: size.height, w: size.width };
    await this.#session.send('POST', place(id, 'resize'), { query, signal: options.signal });
  }

  async inspect(id: string, options: CallOptions = {}): Promise<ExecInspect> {
    return this.#session.json(execInspectSchema, 'GET', place(id, 'json'), { signal: options.signal });
  }
}

function place(id: string, action: string): string {
  return `/exec/${pathSegment(id)}/${action}`;
}
