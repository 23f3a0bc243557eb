import type http from 'node:http';
import type { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { toEngineError } from '../core/errors.ts';
import type { ApiContext } from './api-context.ts';
import { Dispatcher } from './dispatcher.ts';
import { startListener, type Listener, type ListenerSpec } from './listener.ts';
import { compileRoutes } from './route.ts';
import { allRoutes } from './routes/all-routes.ts';

export interface ApiServerOptions extends ApiContext {
  /** One or more. The first failure to listen undoes the others. */
  readonly listeners: readonly ListenerSpec[];
}

export interface ApiServer extends AsyncDisposable {
  /** In the order of the listeners: `unix:///run/bulkhead/bulkhead.sock`, `tcp://127.0.0.1:2376`, `fd://3`. */
  readonly addresses: readonly string[];
  /** Stops accepting and closes idle connections at once; what still runs at the deadline is cut. Idempotent. */
  stop(options: { deadlineMs: number }): Promise<void>;
}

/** Serves the Docker Engine API until stopped. Aborting `signal` stops at once. */
export async function startApiServer(options: ApiServerOptions, signal: AbortSignal): Promise<ApiServer> {
  const table = compileRoutes(allRoutes);
  const connections = new Set<Duplex>();
  const dispatcher = new Dispatcher(options, table);
  const started: Listener[] = [];
  try {
    for (const spec of options.listeners) {
      signal.throwIfAborted();
      const listener = await startListener(spec, (request) => dispatcher.isHijack(request));
      started.push(listener);
      serveConnections(listener.server, dispatcher, connections);
    }
  } catch (error) {
    await Promise.all(started.map((listener) => listener.close()));
    throw toEngineError(error, 'cannot start the API');
  }

  let stopping: Promise<void> | undefined;
  const cutAll = (): void => connections.forEach((connection) => connection.destroy());
  const stop = async (deadlineMs: number): Promise<void> => {
    const closed = Promise.all(started.map((listener) => listener.close()));
    const deadline = new AbortController();
    const cut = delay(deadlineMs, undefined, { signal: deadline.signal }).then(cutAll, () => undefined);
    // Connections that were upgraded are no longer counted by Node's server: wait for the set itself.
    await Promise.race([cut, allClosed(connections)]);
    deadline.abort();
    await closed;
  };
  const server: ApiServer = {
    addresses: started.map((listener) => listener.address),
    async stop({ deadlineMs }) {
      stopping ??= stop(deadlineMs);
      await stopping;
    },
    async [Symbol.asyncDispose]() {
      stopping ??= stop(0);
      cutAll();
      await stopping;
    },
  };
  signal.addEventListener('abort', () => void server[Symbol.asyncDispose](), { once: true });
  return server;
}

async function allClosed(connections: ReadonlySet<Duplex>): Promise<void> {
  await Promise.all(
    [...connections].map((connection) => new Promise<void>((resolve) => connection.once('close', () => resolve()))),
  );
}

function serveConnections(server: http.Server, dispatcher: Dispatcher, connections: Set<Duplex>): void {
  // 'connection' is emitted for TLS's inner sockets too, as 'secureConnection'; the outer ones end with them.
  server.on('connection', (connection) => {
    connections.add(connection);
    connection.once('close', () => connections.delete(connection));
  });
  server.on('request', (incoming, response) => void dispatcher.serveRequest(incoming, response));
  server.on('upgrade', (incoming, connection, head) => void dispatcher.serveUpgrade(incoming, connection, head));
  server.on('clientError', (error: NodeJS.ErrnoException, connection) => {
    if (error.code === 'ECONNRESET' || !connection.writable) {
      connection.destroy();
      return;
    }
    const status = error.code === 'HPE_HEADER_OVERFLOW' ? '431 Request Header Fields Too Large' : '400 Bad Request';
    connection.end(
      `HTTP/1.1 ${status}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n${status}`,
    );
  });
}
