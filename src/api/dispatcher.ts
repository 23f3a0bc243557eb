import http from 'node:http';
import type { Duplex } from 'node:stream';
import { Readable } from 'node:stream';
import { EngineError, toEngineError } from '../core/errors.ts';
import type { ApiContext } from './api-context.ts';
import { ApiReply } from './api-reply.ts';
import { hasBody, readQuery, type ApiRequest } from './api-request.ts';
import { compareVersions, MAXIMUM_API_VERSION, MINIMUM_API_VERSION, negotiateVersion } from './api-version.ts';
import { describeCauses, statusOfError } from './error-status.ts';
import { serveHijack, type HijackedStreams, type HijackOptions } from './hijack.ts';
import type { HijackRoute, OrdinaryRoute, RouteMatch, RouteTable } from './route.ts';
import { readUpgradeBody } from './upgrade-body.ts';

/** Leads requests to their routes, and what the routes throw to the client and the log. */
export class Dispatcher {
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
      if ('hijack' in route) await this.#hijackPlainRequest(route, request, reply);
      else await this.#handle(route, request, reply);
    } catch (thrown) {
      this.#fail(thrown, incoming, reply, response, match, gone.signal);
    }
  }

  async serveUpgrade(incoming: http.IncomingMessage, connection: Duplex, head: Buffer): Promise<void> {
    const gone = new AbortController();
    connection.once('close', () => gone.abort());
    connection.on('error', (error) =>
      this.#context.logger.debug({ error: error.message }, 'hijacked connection failed'),
    );
    let streams: HijackedStreams | undefined;
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
    if (streams === undefined) {
      this.#answer(connection, 200, {}, Buffer.alloc(0));
      return;
    }
    await this.#serveStreams(incoming, connection, streams, {
      isUpgrade: true,
      version: request.version,
      clientBytes: connection,
    });
  }

  /** Without `Upgrade`. Node goes on parsing HTTP on such a connection, so it is taken from the parser first. */
  async #hijackPlainRequest(route: HijackRoute, request: ApiRequest, reply: ApiReply): Promise<void> {
    const { incoming } = request;
    const streams = await route.hijack(request, this.#context);
    if (streams === undefined) {
      reply.empty(200);
      return;
    }
    const connection = incoming.socket;
    const isChunked = incoming.headers['transfer-encoding'] !== undefined;
    // The parser's own listeners: it would answer the client's half-close by ending ours, and read stdin as another request.
    connection.removeAllListeners('end');
    if (!isChunked) connection.removeAllListeners('data');
    connection.on('error', (error) =>
      this.#context.logger.debug({ error: error.message }, 'hijacked connection failed'),
    );
    await this.#serveStreams(incoming, connection, streams, {
      isUpgrade: false,
      version: request.version,
      clientBytes: isChunked ? incoming : connection,
    });
  }

  async #serveStreams(
    incoming: http.IncomingMessage,
    connection: Duplex,
    streams: HijackedStreams,
    options: Pick<HijackOptions, 'isUpgrade' | 'version' | 'clientBytes'>,
  ): Promise<void> {
    const userAgent = incoming.headers['user-agent'] ?? '';
    try {
      await serveHijack(connection, streams, { ...options, headers: this.#headers, userAgent });
    } catch (thrown) {
      this.#log(toEngineError(thrown, 'the stream broke'), incoming, { isGone: false });
    }
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
    this.#log(error, incoming, { isGone: gone.aborted });
    if (gone.aborted || response.destroyed || response.writableEnded) return;
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
    this.#log(error, incoming, { isGone: gone.aborted });
    const body = Buffer.from(`${JSON.stringify({ message: error.message })}\n`);
    this.#answer(connection, statusOfError(error), { 'Content-Type': 'application/json' }, body);
  }

  /** An ordinary answer on a connection that Node's HTTP no longer serves. */
  #answer(connection: Duplex, status: number, more: Readonly<Record<string, string>>, body: Buffer): void {
    const headers = { ...this.#headers, ...more, 'Content-Length': body.length, Connection: 'close' };
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    const statusLine = `HTTP/1.1 ${status} ${http.STATUS_CODES[status] ?? ''}\r\n`;
    connection.end(Buffer.concat([Buffer.from(`${statusLine}${lines.join('')}\r\n`), body]));
    connection.resume();
    connection.once('end', () => connection.destroy());
  }

  #log(error: EngineError, incoming: http.IncomingMessage, { isGone }: { isGone: boolean }): void {
    const facts = { method: incoming.method, url: incoming.url, code: error.code, message: error.message };
    if (isGone || error.code === 'cancelled') this.#context.logger.debug(facts, 'client went away');
    else if (statusOfError(error) < 500) this.#context.logger.debug(facts, 'request refused');
    else
      this.#context.logger.error({ ...facts, details: error.details, causes: describeCauses(error) }, 'request failed');
  }
}
