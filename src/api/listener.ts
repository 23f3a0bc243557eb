import { once } from 'node:events';
import http from 'node:http';
import https from 'node:https';
import type { AddressInfo, ListenOptions } from 'node:net';
import type { SecureContextOptions, TlsOptions } from 'node:tls';
import { EngineError, systemErrorCode } from '../core/errors.ts';
import { assignGroup, clearStaleSocket } from './unix-socket-file.ts';

/** Where the API is served. */
export type ListenerSpec = UnixListenerSpec | TcpListenerSpec | PassedListenerSpec;

export interface UnixListenerSpec {
  readonly kind: 'unix';
  readonly path: string;
  /** Owner of the socket beside root; `docker` where not given. A group that the host does not have is left out. */
  readonly group?: string;
}

export interface TcpListenerSpec {
  readonly kind: 'tcp';
  readonly host: string;
  /** 0 lets the host choose. */
  readonly port: number;
  readonly tls?: SecureContextOptions & Pick<TlsOptions, 'requestCert' | 'rejectUnauthorized'>;
}

/** A socket that is listening already, passed by the service supervisor. */
export interface PassedListenerSpec {
  readonly kind: 'fd';
  readonly fd: number;
}

export interface Listener {
  /** `unix:///run/x.sock`, `tcp://127.0.0.1:2376`, `fd://3`. */
  readonly address: string;
  readonly server: http.Server | https.Server;
  /** Stops accepting; connections that are in use go on. */
  close(): Promise<void>;
}

/** Go's default limit, 1 MiB: `X-Registry-Config` with many logins passes Node's 16 KiB. */
const MAXIMUM_HEADER_BYTES = 1024 * 1024;
const HEADERS_TIMEOUT_MS = 60_000;
/** Longer than Go's pooled clients keep a connection idle (90 s), so that the client is the one who closes. */
const KEEP_ALIVE_TIMEOUT_MS = 120_000;
/** As Go's listeners do. */
const TCP_KEEP_ALIVE_MS = 15_000;
const BACKLOG = 4096;

export async function startListener(
  spec: ListenerSpec,
  shouldUpgrade: (request: http.IncomingMessage) => boolean,
): Promise<Listener> {
  const options: http.ServerOptions = {
    maxHeaderSize: MAXIMUM_HEADER_BYTES,
    // Uploads (load, build, cp) and waits take as long as they take.
    requestTimeout: 0,
    headersTimeout: HEADERS_TIMEOUT_MS,
    keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
    noDelay: true,
    // A client whose host has vanished is noticed although a wait or an attachment is silent.
    keepAlive: true,
    keepAliveInitialDelay: TCP_KEEP_ALIVE_MS,
    shouldUpgradeCallback: shouldUpgrade,
  };
  const server =
    spec.kind === 'tcp' && spec.tls !== undefined
      ? // Without allowHalfOpen, output after the client's end of stdin is lost silently (TLS only; plain sockets are half-open already).
        https.createServer({ ...options, ...spec.tls, allowHalfOpen: true })
      : http.createServer(options);
  server.timeout = 0;
  switch (spec.kind) {
    case 'unix':
      return listenOnUnix(server, spec);
    case 'tcp': {
      await listen(server, { host: spec.host, port: spec.port }, `tcp://${spec.host}:${spec.port}`);
      const { address, port, family } = server.address() as AddressInfo;
      return {
        address: `tcp://${family === 'IPv6' ? `[${address}]` : address}:${port}`,
        server,
        close: () => close(server),
      };
    }
    case 'fd':
      await listen(server, { fd: spec.fd } as ListenOptions, `fd://${spec.fd}`);
      return { address: `fd://${spec.fd}`, server, close: () => close(server) };
  }
}

async function listenOnUnix(server: http.Server, spec: UnixListenerSpec): Promise<Listener> {
  await clearStaleSocket(spec.path);
  // The socket is bound before listen() returns, so nobody else's file is touched by this umask: mode 0660 from its first moment.
  const previousMask = process.umask(0o117);
  const listening = listen(server, { path: spec.path }, `unix://${spec.path}`);
  process.umask(previousMask);
  await listening;
  await assignGroup(spec.path, spec.group ?? 'docker');
  // Closing the server removes the socket file.
  return { address: `unix://${spec.path}`, server, close: () => close(server) };
}

async function listen(server: http.Server, options: ListenOptions, address: string): Promise<void> {
  const listening = once(server, 'listening');
  server.listen({ ...options, backlog: BACKLOG });
  try {
    await listening;
  } catch (error) {
    const reason = systemErrorCode(error) === 'EADDRINUSE' ? 'the address is in use' : 'the host refused it';
    throw new EngineError('unavailable', `cannot listen on ${address}: ${reason}`, { cause: error });
  }
}

function close(server: http.Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeIdleConnections();
  });
}
