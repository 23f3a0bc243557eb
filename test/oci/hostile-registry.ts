import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Blob, TestImage } from './image-fixture.ts';

export type Handler = (request: IncomingMessage, response: ServerResponse) => void;

export interface HostileRegistry extends AsyncDisposable {
  readonly host: string;
  readonly requests: {
    readonly method: string;
    readonly url: string;
    readonly authorization: string | undefined;
    readonly range: string | undefined;
  }[];
}

/** A server on loopback that does whatever the test says. `name` is how it appears in image names: other names are other hosts. */
export async function startServer(handler: Handler, name = '127.0.0.1'): Promise<HostileRegistry> {
  const requests: HostileRegistry['requests'][number][] = [];
  const server = createServer((request, response) => {
    const { method = '', url = '', headers } = request;
    requests.push({ method, url, authorization: headers.authorization, range: headers.range });
    handler(request, response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    host: `${name}:${port}`,
    requests,
    [Symbol.asyncDispose]: async () => {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

export function sendJson(
  response: ServerResponse,
  status: number,
  value: unknown,
  headers: Record<string, string> = {},
): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(value));
}

export function sendBlob(response: ServerResponse, blob: Blob): void {
  response.writeHead(200, { 'content-type': blob.mediaType, 'content-length': String(blob.size) }).end(blob.bytes);
}

/** Serves the image honestly, unless `twist` deals with the request itself (and says so by returning true). */
export function serveImage(
  image: TestImage,
  twist: (request: IncomingMessage, response: ServerResponse) => boolean = () => false,
): Handler {
  return (request, response) => {
    const url = request.url ?? '';
    if (twist(request, response)) return;
    const blob = image.blobs.find(({ digest }) => url.endsWith(`/blobs/${digest}`));
    if (url === '/v2/') response.writeHead(200).end('{}');
    else if (url.includes('/manifests/')) sendBlob(response, image.manifest);
    else if (blob) sendBlob(response, blob);
    else sendJson(response, 404, { errors: [{ code: 'BLOB_UNKNOWN', message: 'blob unknown' }] });
  };
}
