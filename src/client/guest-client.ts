import type { Duplex, Readable } from 'node:stream';
import * as z from 'zod/mini';
import type {
  GuestAllocationRequest,
  GuestAllocationResult,
  GuestExecRequest,
  GuestExecResult,
  GuestImageView,
  GuestLaunchMessage,
  GuestLaunchRequest,
  GuestView,
} from '../wire/guest.ts';
import { pathSegment, type ApiSession } from './api-session.ts';
import type { CallOptions } from './call-options.ts';

/** Answers are ours on both ends: the shape is the daemon's word, beyond being an object. */
const guestAnswer = z.custom<GuestView>((value) => isObject(value) && typeof value['id'] === 'string');
const imageAnswer = z.custom<GuestImageView>((value) => isObject(value) && typeof value['name'] === 'string');
const execAnswer = z.custom<GuestExecResult>((value) => isObject(value) && typeof value['exitCode'] === 'number');
const allocationAnswer = z.custom<GuestAllocationResult>((value) => isObject(value) && Array.isArray(value['changes']));
const launchAnswer = z.custom<GuestLaunchMessage>(isObject);

/** Guest operating systems: `/bulkhead/guests` of our own API. */
export class GuestClient {
  readonly #session: ApiSession;

  constructor(session: ApiSession) {
    this.#session = session;
  }

  /** What is being done, and at the end the guest. A failure midway arrives as a message with `errorDetail`. */
  async launch(
    request: GuestLaunchRequest,
    options: CallOptions = {},
  ): Promise<AsyncGenerator<GuestLaunchMessage, void, undefined>> {
    const body = { json: request };
    return this.#session.messages(launchAnswer, 'POST', '/bulkhead/guests/launch', { body, signal: options.signal });
  }

  async list(options: CallOptions = {}): Promise<GuestView[]> {
    return this.#session.json(z.array(guestAnswer), 'GET', '/bulkhead/guests', { signal: options.signal });
  }

  async inspect(name: string, options: CallOptions = {}): Promise<GuestView> {
    return this.#session.json(guestAnswer, 'GET', place(name), { signal: options.signal });
  }

  async start(name: string, options: CallOptions = {}): Promise<GuestView> {
    return this.#session.json(guestAnswer, 'POST', place(name, 'start'), { signal: options.signal });
  }

  async stop(
    name: string,
    options: CallOptions & { force?: boolean; timeoutSeconds?: number | undefined } = {},
  ): Promise<GuestView> {
    const query = { force: options.force, timeout: options.timeoutSeconds };
    return this.#session.json(guestAnswer, 'POST', place(name, 'stop'), { query, signal: options.signal });
  }

  async restart(
    name: string,
    options: CallOptions & { force?: boolean; timeoutSeconds?: number | undefined } = {},
  ): Promise<GuestView> {
    const query = { force: options.force, timeout: options.timeoutSeconds };
    return this.#session.json(guestAnswer, 'POST', place(name, 'restart'), { query, signal: options.signal });
  }

  async delete(name: string, options: CallOptions & { force?: boolean } = {}): Promise<void> {
    await this.#session.send('DELETE', place(name), { query: { force: options.force }, signal: options.signal });
  }

  /** Changes vCPUs, memory and disk, at once if the guest runs. */
  async allocate(
    name: string,
    request: GuestAllocationRequest,
    options: CallOptions = {},
  ): Promise<GuestAllocationResult> {
    const body = { json: request };
    return this.#session.json(allocationAnswer, 'POST', place(name, 'set'), { body, signal: options.signal });
  }

  /** Through the guest's agent: no terminal, input at once, output at the end. */
  async exec(name: string, request: GuestExecRequest, options: CallOptions = {}): Promise<GuestExecResult> {
    const body = { json: request };
    return this.#session.json(execAnswer, 'POST', place(name, 'exec'), { body, signal: options.signal });
  }

  /** A regular file of the guest; `path` is absolute. */
  async readFile(name: string, path: string, options: CallOptions = {}): Promise<Readable> {
    return this.#session.stream('GET', place(name, 'file'), { query: { path }, signal: options.signal });
  }

  async writeFile(name: string, path: string, content: Readable, options: CallOptions = {}): Promise<void> {
    await this.#session.send('PUT', place(name, 'file'), {
      query: { path },
      body: { stream: content, contentType: 'application/octet-stream' },
      signal: options.signal,
    });
  }

  async consoleLog(name: string, options: CallOptions & { follow?: boolean } = {}): Promise<Readable> {
    return this.#session.stream('GET', place(name, 'log'), {
      query: { follow: options.follow },
      signal: options.signal,
    });
  }

  /** The serial console both ways, raw. */
  async attachConsole(name: string, options: CallOptions = {}): Promise<Duplex> {
    return (await this.#session.hijack(place(name, 'console'), { signal: options.signal })).stream;
  }

  async listImages(options: CallOptions = {}): Promise<GuestImageView[]> {
    return this.#session.json(z.array(imageAnswer), 'GET', '/bulkhead/guest-images', { signal: options.signal });
  }

  /** Sends a disk image of any known format. */
  async importImage(name: string, image: Readable, options: CallOptions = {}): Promise<GuestImageView> {
    return this.#session.json(imageAnswer, 'POST', `/bulkhead/guest-images/${pathSegment(name)}/import`, {
      body: { stream: image, contentType: 'application/octet-stream' },
      signal: options.signal,
    });
  }

  async removeImage(name: string, options: CallOptions = {}): Promise<void> {
    await this.#session.send('DELETE', `/bulkhead/guest-images/${pathSegment(name)}`, { signal: options.signal });
  }
}

function place(name: string, action?: string): string {
  const path = `/bulkhead/guests/${pathSegment(name)}`;
  return action === undefined ? path : `${path}/${action}`;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}
