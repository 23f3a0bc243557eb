import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';

/** A request as the daemon saw it, without the version of its path. */
export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly body: string;
  readonly headers: IncomingMessage['headers'];
}

export interface Script {
  readonly answer?: (request: SeenRequest, response: ServerResponse) => void;
  /** Gets the raw stream after the 101. */
  readonly attach?: (stream: Duplex) => void;
}

export interface ScriptedDaemon extends AsyncDisposable {
  readonly host: string;
  readonly seen: SeenRequest[];
}

/** An HTTP server on a unix socket that answers what the test says, for the cases that a working daemon does not produce on demand. */
export async function startScriptedDaemon(script: Script): Promise<ScriptedDaemon> {
  const path = join(tmpdir(), `bulkhead-scripted-${randomUUID()}.sock`);
  const seen: SeenRequest[] = [];
  // The server forgets a connection that was upgraded, and waits for it nevertheless.
  const upgraded: Duplex[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const record = describeRequest(request, Buffer.concat(chunks).toString('utf8'));
      seen.push(record);
      response.setHeader('Api-Version', '1.47');
      if (record.path === '/_ping') response.end();
      else if (script.answer === undefined) answerJson(response, 404, { message: 'page not found' });
      else script.answer(record, response);
    });
  });
  server.on('upgrade', (request, socket) => {
    seen.push(describeRequest(request, ''));
    upgraded.push(socket);
    socket.write(
      'HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n',
    );
    socket.on('error', () => {});
    script.attach?.(socket);
  });
  server.listen(path);
  await once(server, 'listening');
  return {
    host: `unix://${path}`,
    seen,
    [Symbol.asyncDispose]: async () => {
      for (const socket of upgraded) socket.destroy();
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

export function answerJson(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(`${JSON.stringify(body)}\n`);
}

/** One frame of Docker's multiplexed stream. */
export function frame(stream: number, payload: string | Buffer): Buffer {
  const bytes = Buffer.from(payload);
  const header = Buffer.alloc(8);
  header.writeUInt8(stream, 0);
  header.writeUInt32BE(bytes.length, 4);
  return Buffer.concat([header, bytes]);
}

function describeRequest(request: IncomingMessage, body: string): SeenRequest {
  const url = new URL(request.url ?? '/', 'http://daemon');
  return {
    method: request.method ?? '',
    path: url.pathname.replace(/^\/v\d+\.\d+/, ''),
    query: url.searchParams,
    body,
    headers: request.headers,
  };
}
