import { pipeline, type Readable } from 'node:stream';
import type { Sandbox } from '../sandbox/sandbox.ts';
import { ClientStreams } from './client-streams.ts';
import type { Attachment, AttachOptions } from './engine.ts';
import type { ContainerRecord } from './container-record.ts';

const INIT = 'init';

interface Client {
  readonly options: AttachOptions;
  readonly streams: ClientStreams;
  readonly keepOpen: boolean;
  isConnected: boolean;
}

/**
 * Who is attached to what. A client may come before the container is started: it is then connected before the first process runs, so it
 * misses nothing.
 */
export class Attachments {
  readonly #clients = new Map<string, Set<Client>>();

  /** `sandbox` is undefined for a container that is not started yet. `history` replaces the live output (`logs=1`). */
  async attach(
    record: ContainerRecord,
    options: AttachOptions,
    sandbox: Sandbox | undefined,
    history: Readable | undefined,
    onDetach: () => void,
  ): Promise<Attachment> {
    const streams = new ClientStreams({
      tty: record.config.Tty ?? false,
      stdin: options.stdin && options.stream && (record.config.OpenStdin ?? false),
      detachKeys: options.detachKeys,
      onDetach,
      onClose: () => this.#clients.get(record.id)?.delete(client),
    });
    const client: Client = {
      options,
      streams,
      keepOpen: (record.config.Tty ?? false) || !(record.config.StdinOnce ?? false),
      isConnected: false,
    };
    const clients = this.#clients.get(record.id) ?? new Set<Client>();
    this.#clients.set(record.id, clients);
    clients.add(client);
    try {
      if (history) pipeline(history, streams.output, () => streams.close());
      if (sandbox) await this.#connect(client, record.id, sandbox, history ? 'none' : 'now');
    } catch (error) {
      streams.close();
      throw error;
    }
    return streams;
  }

  /** The container's process stands ready and has not run yet: every waiting client is connected from the first byte on. */
  async connect(containerId: string, sandbox: Sandbox): Promise<void> {
    const waiting = [...(this.#clients.get(containerId) ?? [])].filter((client) => !client.isConnected);
    await Promise.all(
      // A client that went away meanwhile is no reason for the container not to start.
      waiting.map((client) => this.#connect(client, containerId, sandbox, 'start').catch(() => client.streams.close())),
    );
  }

  /** The container's output has ended, or it will not start: clients that never got a stream are let go. */
  end(containerId: string): void {
    for (const client of [...(this.#clients.get(containerId) ?? [])]) {
      if (!client.isConnected) client.streams.output.end();
    }
    this.#clients.delete(containerId);
  }

  async #connect(client: Client, containerId: string, sandbox: Sandbox, from: 'start' | 'now' | 'none'): Promise<void> {
    client.isConnected = true;
    const { options, streams, keepOpen } = client;
    const place = { sandbox, containerId, process: INIT };
    if (from !== 'none' && options.stream) {
      const { stdout, stderr } = options;
      if (stdout || stderr) streams.relay(await streams.openOutput(place, { from, stdout, stderr }));
      else streams.endWith(place);
    }
    streams.joinInput(place, { keepOpen });
  }
}
