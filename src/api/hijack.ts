import { setTimeout as delay } from 'node:timers/promises';
import type { Duplex, Readable, Writable } from 'node:stream';
import { isAtLeast, type ApiVersion } from './api-version.ts';

/** What a connection becomes. The engine's `Attachment` is one. */
export interface HijackedStreams {
  readonly tty: boolean;
  readonly output: Readable;
  readonly input: Writable | undefined;
  close(): void;
}

export interface HijackOptions {
  /** The client asked with an `Upgrade` header and wants 101; without, it wants a 200 that never ends (old clients, dockerode). */
  readonly isUpgrade: boolean;
  readonly version: ApiVersion;
  readonly headers: Readonly<Record<string, string>>;
  readonly userAgent: string;
  /** Where the client's bytes come from; the connection itself, or the request where its body is chunked. */
  readonly clientBytes: Readable;
}

const RAW_TYPE = 'application/vnd.docker.raw-stream';
const MULTIPLEXED_TYPE = 'application/vnd.docker.multiplexed-stream';

/** How long a client may keep its half open after the output has ended, before the connection is cut. */
const LINGER_MS = 10_000;

/**
 * docker-py reads the bare file descriptor after the headers and loses what its HTTP library had already buffered: 20 ms between headers
 * and output lose nothing (measured). Only its own requests wait.
 */
const DOCKER_PY_AGENT = /^docker-sdk-python\b/;
const DOCKER_PY_PAUSE_MS = 20;

/** Turns the connection into the container's streams, until both sides are done and it is closed. Throws what broke the output. */
export async function serveHijack(connection: Duplex, streams: HijackedStreams, options: HijackOptions): Promise<void> {
  if (connection.destroyed) {
    streams.output.destroy();
    streams.close();
    return;
  }
  const closed = new Promise<void>((resolve) => connection.once('close', resolve));
  let lingering: NodeJS.Timeout | undefined;
  connection.once('close', () => {
    clearTimeout(lingering);
    streams.output.destroy();
    streams.close();
  });
  let failure: Error | undefined;
  streams.output.on('error', (error) => {
    failure = error;
    connection.destroy();
  });
  streams.output.once('end', () => {
    lingering = setTimeout(() => connection.destroy(), LINGER_MS);
  });

  // The headers go out by themselves: clients that read the socket behind their HTTP library's back must not find output stuck to them.
  await new Promise<void>((resolve) => {
    connection.once('close', resolve);
    connection.write(headerText(streams.tty, options), () => setImmediate(resolve));
  });
  forwardInput(options.clientBytes, streams.input);
  if (DOCKER_PY_AGENT.test(options.userAgent)) await delay(DOCKER_PY_PAUSE_MS);
  if (connection.destroyed) streams.output.destroy();
  else streams.output.pipe(connection);
  await closed;
  if (failure !== undefined) throw failure;
}

/** End of the client's half is end of stdin, and output goes on. Once nobody reads stdin, what still comes is read and dropped. */
function forwardInput(clientBytes: Readable, input: Writable | undefined): void {
  if (input === undefined) {
    clientBytes.resume();
    return;
  }
  const discard = (): void => {
    clientBytes.unpipe(input);
    clientBytes.resume();
  };
  input.on('error', discard);
  input.once('close', discard);
  clientBytes.pipe(input);
}

function headerText(tty: boolean, options: HijackOptions): string {
  const isMultiplexed = options.isUpgrade && !tty && isAtLeast(options.version, '1.42');
  const status = options.isUpgrade
    ? [
        'HTTP/1.1 101 UPGRADED',
        `Content-Type: ${isMultiplexed ? MULTIPLEXED_TYPE : RAW_TYPE}`,
        'Connection: Upgrade',
        'Upgrade: tcp',
      ]
    : ['HTTP/1.1 200 OK', `Content-Type: ${RAW_TYPE}`];
  const others = Object.entries(options.headers).map(([name, value]) => `${name}: ${value}`);
  return [...status, ...others, '', ''].join('\r\n');
}
