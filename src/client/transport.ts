import type * as Http from 'node:http';
import type * as Https from 'node:https';
import type { Duplex } from 'node:stream';
import { formatHostAddress, type HostAddress } from './host-address.ts';
import { connectThroughSsh } from './ssh-connection.ts';

/** PEM texts of a TLS connection. */
export interface TlsOptions {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  /** False accepts any server certificate (Docker's `--tls` without `--tlsverify`). Default true. */
  readonly verify?: boolean;
}

export interface RequestTarget {
  readonly method: string;
  readonly path: string;
  readonly headers: Http.OutgoingHttpHeaders;
  readonly signal: AbortSignal | undefined;
}

/** How requests reach one daemon. Connections are kept for reuse until `close`. */
export interface Transport {
  /** As the user writes the address. */
  readonly description: string;
  /** `hijack` asks for a connection of its own, which becomes a raw stream. */
  open(target: RequestTarget, hijack: boolean): Http.ClientRequest;
  /** A bare connection, for relaying. */
  connect(): Promise<Duplex>;
  close(): void;
}

export function createTransport(address: HostAddress, tls: TlsOptions | undefined): Transport {
  // Not `import`: the ES facade of node:http reads every export, and one of them loads the whole of undici (about 35 ms).
  const http = process.getBuiltinModule('node:http');
  const description = formatHostAddress(address);
  if (address.kind === 'ssh') return sshTransport(http, address, description);
  const secure = address.kind === 'tcp' && tls !== undefined;
  const library: typeof Http | typeof Https = secure ? process.getBuiltinModule('node:https') : http;
  const place = address.kind === 'unix' ? { socketPath: address.path } : { host: address.hostName, port: address.port };
  const security =
    secure && tls !== undefined
      ? { ca: tls.ca, cert: tls.cert, key: tls.key, rejectUnauthorized: tls.verify ?? true }
      : {};
  const agent = new library.Agent({ keepAlive: true, ...security });
  return {
    description,
    open: ({ signal, ...target }, hijack) =>
      library.request({
        ...place,
        ...security,
        ...target,
        ...(signal === undefined ? {} : { signal }),
        agent: hijack ? new library.Agent({ keepAlive: false, ...security }) : agent,
      }),
    connect: () => connectSocket(address, secure ? security : undefined),
    close: () => {
      agent.destroy();
    },
  };
}

function sshTransport(http: typeof Http, address: HostAddress & { kind: 'ssh' }, description: string): Transport {
  return {
    description,
    open: ({ signal, ...target }) =>
      http.request({
        ...target,
        ...(signal === undefined ? {} : { signal }),
        headers: { ...target.headers, host: 'localhost' },
        // One ssh process a request: its exit is what tells why a connection failed.
        agent: undefined,
        createConnection: () => connectThroughSsh(address),
      }),
    connect: () => Promise.resolve(connectThroughSsh(address)),
    close: () => {},
  };
}

async function connectSocket(
  address: HostAddress & { kind: 'unix' | 'tcp' },
  security: object | undefined,
): Promise<Duplex> {
  const place = address.kind === 'unix' ? { path: address.path } : { host: address.hostName, port: address.port };
  const { promise, resolve, reject } = Promise.withResolvers<Duplex>();
  if (security === undefined) {
    const { connect } = process.getBuiltinModule('node:net');
    const socket = connect({ ...place, allowHalfOpen: true }, () => resolve(socket)).once('error', reject);
  } else {
    const { connect } = process.getBuiltinModule('node:tls');
    const socket = connect({ ...place, ...security }, () => resolve(socket)).once('error', reject);
  }
  return promise;
}
