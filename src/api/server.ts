import http from 'node:http';
import type { Duplex } from 'node:stream';
import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { EngineError, toEngineError } from '../core/errors.ts';
import type { ApiContext } from './api-context.ts';
import { ApiReply } from './api-reply.ts';
import { hasBody, readQuery, type ApiRequest } from './api-request.ts';
import { compareVersions, MAXIMUM_API_VERSION, MINIMUM_API_VERSION, negotiateVersion } from './api-version.ts';
import { describeCauses, statusOfError } from './error-status.ts';
import { serveHijack, type HijackedStreams } from './hijack.ts';
import { startListener, type Listener, type ListenerSpec } from './listener.ts';
import { compileRoutes, type HijackRoute, type OrdinaryRoute, type RouteMatch, type RouteTable } from './route.ts';
import { allRoutes } from './routes/all-routes.ts';
import { readUpgradeBody } from './upgrade-body.ts';

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
    connection.end(`HTTP/1.1 ${status}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n${status}`);
  });
}

/** Leads requests to their routes, and what the routes throw to the client and the log. */
class Dispatcher {
  readonly #context: ApiContext;
  readonly #table: RouteTable;
  /** On every answer (moby daemon/server/middleware/version.go). */
  readonly #headers: Readonly<Record<string, string>>;

  constructor(context: ApiContext, table: RouteTable) {
    this.#context = context;
    this.#table = table;
    this.#headers = {
      'Api-Version': MAXIMUM_API_VERSION,
      'Docker-Experimental': 'false',
      Ostype: 'linux',
      Server: `Docker/${context.version.engine} (linux)`,
    };
  }

  /** Upgrades are obeyed only where they mean something: HTTP clients of other kinds offer `h2c` with every request. */
  isHijack(incoming: http.IncomingMessage): boolean {
    const match = this.#match(incoming);
    return match !== undefined && 'hijack' in match.route;
  }

  async serveRequest(incoming: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    for (const [name, value] of Object.entries(this.#headers)) response.setHeader(name, value);
    const gone = new AbortController();
    response.once('close', () => {
      if (!response.writableFinished) gone.abort();
    });
    const reply = new ApiReply(response);
    let match: RouteMatch | undefined;
    try {
      match = this.#match(incoming);
      if (match === undefined) throw new EngineError('not-found', 'page not found');
      const { route } = match;
      const request = await this.#request(incoming, match, gone.signal, incoming);
      if ('hijack' in route) await this.#hijackPlainRequest(route, request, incoming);
      else await this.#handle(route, request, reply);
    } catch (thrown) {
      this.#fail(thrown, incoming, reply, response, match, gone.signal);
    }
  }

  async serveUpgrade(incoming: http.IncomingMessage, connection: Duplex, head: Buffer): Promise<void> {
    const gone = new AbortController();
    connection.once('close', () => gone.abort());
    connection.on('error', (error) => this.#context.logger.debug({ error: error.message }, 'hijacked connection failed'));
    let streams: HijackedStreams;
    let match: RouteMatch | undefined;
    let request: ApiRequest;
    try {
      match = this.#match(incoming);
      if (match === undefined || !('hijack' in match.route)) throw new EngineError('not-found', 'page not found');
      const body = await readUpgradeBody(connection, head, incoming.headers);
      request = await this.#request(incoming, match, gone.signal, Readable.from(body.length > 0 ? [body] : []));
      streams = await match.route.hijack(request, this.#context);
    } catch (thrown) {
      this.#failUpgrade(thrown, incoming, connection, gone.signal);
      return;
    }
    if (connection.destroyed) {
      streams.output.destroy();
      streams.close();
      return;
    }
    await serveHijack(connection, streams, {
      isUpgrade: true,
      version: request.version,
      headers: this.#headers,
      userAgent: incoming.headers['user-agent'] ?? '',
      clientBytes: connection,
    });
  }

  /** Without `Upgrade`. Node goes on parsing HTTP on such a connection, so it is taken from the parser first. */
  async #hijackPlainRequest(route: HijackRoute, request: ApiRequest, incoming: http.IncomingMessage): Promise<void> {
    const streams = await route.hijack(request, this.#context);
    const connection = incoming.socket;
    const isChunked = incoming.headers['transfer-encoding'] !== undefined;
    // The parser's own listeners: it would answer the client's half-close by ending ours, and read stdin as another request.
    connection.removeAllListeners('end');
    if (!isChunked) connection.removeAllListeners('data');
    connection.on('error', (error) => this.#context.logger.debug({ error: error.message }, 'hijacked connection failed'));
    await serveHijack(connection, streams, {
      isUpgrade: false,
      version: request.version,
      headers: this.#headers,
      userAgent: incoming.headers['user-agent'] ?? '',
      clientBytes: isChunked ? incoming : connection,
    });
  }

  async #handle(route: OrdinaryRoute, request: ApiRequest, reply: ApiReply): Promise<void> {
    await route.handle(request, reply, this.#context);
    // What no route wanted to read must not be taken for the next request, nor keep the connection from being used again.
    if (!request.incoming.readableEnded) request.incoming.resume();
  }

  async #request(
    incoming: http.IncomingMessage,
    match: RouteMatch,
    signal: AbortSignal,
    body: Readable,
  ): Promise<ApiRequest> {
    const version = negotiateVersion(match.requestedVersion);
    const search = (incoming.url ?? '').split('?').slice(1).join('?');
    const query = body === incoming ? await readQuery(incoming, search) : new URLSearchParams(search);
    return { method: incoming.method ?? 'GET', parameters: match.parameters, query, version, incoming, body, signal };
  }

  #match(incoming: http.IncomingMessage): RouteMatch | undefined {
    const encodedPath = (incoming.url ?? '/').split('?', 1)[0] ?? '/';
    try {
      return this.#table.match(incoming.method ?? 'GET', decodeURIComponent(encodedPath));
    } catch {
      return undefined;
    }
  }

  #fail(
    thrown: unknown,
    incoming: http.IncomingMessage,
    reply: ApiReply,
    response: http.ServerResponse,
    match: RouteMatch | undefined,
    gone: AbortSignal,
  ): void {
    const error = toEngineError(thrown);
    this.#log(error, incoming, gone);
    if (gone.aborted || response.destroyed) return;
    if (reply.isStarted) {
      reply.cut();
      return;
    }
    // A body that nobody will read to its end cannot be followed by another request.
    if (hasBody(incoming) && !incoming.complete) reply.header('Connection', 'close');
    const requested = match?.requestedVersion;
    reply.error(error, { plainText: requested !== undefined && compareVersions(requested, MINIMUM_API_VERSION) < 0 });
    incoming.resume();
  }

  #failUpgrade(thrown: unknown, incoming: http.IncomingMessage, connection: Duplex, gone: AbortSignal): void {
    const error = toEngineError(thrown);
    this.#log(error, incoming, gone);
    const status = statusOfError(error);
    const body = Buffer.from(`${JSON.stringify({ message: error.message })}\n`);
    const headers = { ...this.#headers, 'Content-Type': 'application/json', 'Content-Length': body.length, Connection: 'close' };
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    const statusLine = `HTTP/1.1 ${status} ${http.STATUS_CODES[status] ?? ''}\r\n`;
    connection.end(Buffer.concat([Buffer.from(`${statusLine}${lines.join('')}\r\n`), body]));
    connection.resume();
    connection.once('end', () => connection.destroy());
  }

  #log(error: EngineError, incoming: http.IncomingMessage, gone: AbortSignal): void {
    const facts = { method: incoming.method, url: incoming.url, code: error.code, message: error.message };
    if (gone.aborted || error.code === 'cancelled') this.#context.logger.debug(facts, 'client went away');
    else if (statusOfError(error) < 500) this.#context.logger.debug(facts, 'request refused');
    else this.#context.logger.error({ ...facts, details: error.details, causes: describeCauses(error) }, 'request failed');
  }
}
