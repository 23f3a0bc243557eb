import { EngineError } from '../core/errors.ts';

/** Where a daemon listens. */
export type HostAddress =
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'tcp'; readonly hostName: string; readonly port: number }
  | {
      readonly kind: 'ssh';
      readonly hostName: string;
      readonly user: string | undefined;
      readonly port: number | undefined;
      /** Socket of the remote daemon; undefined is that machine's default. */
      readonly socketPath: string | undefined;
    };

export const DEFAULT_HOST = 'unix:///run/bulkhead/bulkhead.sock';

/** Ports of dockerd, without and with TLS. */
const PLAIN_PORT = 2375;
const TLS_PORT = 2376;

/** Reads `unix:///path`, `tcp://host[:port]`, `http(s)://host[:port]`, `ssh://[user@]host[:port][/socket]`; throws `invalid-argument`. */
export function parseHostAddress(text: string, usesTls = false): HostAddress {
  const separator = text.indexOf('://');
  const scheme = separator === -1 ? '' : text.slice(0, separator);
  const rest = separator === -1 ? text : text.slice(separator + 3);
  switch (scheme) {
    case 'unix':
      if (rest === '') throw invalidHost(text, 'a socket path must follow unix://');
      return { kind: 'unix', path: rest };
    case '':
    case 'tcp':
    case 'http':
    case 'https':
      return parseTcp(text, rest, usesTls || scheme === 'https');
    case 'ssh':
      return parseSsh(text);
    default:
      throw invalidHost(text, 'use unix://PATH, tcp://HOST[:PORT] or ssh://[USER@]HOST');
  }
}

/** The address as a user writes it. */
export function formatHostAddress(address: HostAddress): string {
  switch (address.kind) {
    case 'unix':
      return `unix://${address.path}`;
    case 'tcp':
      return `tcp://${bracketIpv6(address.hostName)}:${address.port}`;
    case 'ssh': {
      const user = address.user === undefined ? '' : `${address.user}@`;
      const port = address.port === undefined ? '' : `:${address.port}`;
      return `ssh://${user}${bracketIpv6(address.hostName)}${port}${address.socketPath ?? ''}`;
    }
  }
}

function parseTcp(text: string, rest: string, usesTls: boolean): HostAddress {
  const match = /^(?:\[([0-9a-fA-F:.%]+)\]|([^:/[\]]*))(?::(\d+))?\/?$/.exec(rest);
  if (match === null || text === '') throw invalidHost(text, 'use tcp://HOST[:PORT]');
  const port = match[3] === undefined ? (usesTls ? TLS_PORT : PLAIN_PORT) : Number(match[3]);
  if (port < 1 || port > 65535) throw invalidHost(text, 'a port is a number from 1 to 65535');
  return { kind: 'tcp', hostName: match[1] ?? (match[2] || '127.0.0.1'), port };
}

function parseSsh(text: string): HostAddress {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  // A host that starts with a dash would be read by ssh as an option.
  if (url === undefined || url.hostname === '' || url.hostname.startsWith('-') || url.username.startsWith('-')) {
    throw invalidHost(text, 'use ssh://[USER@]HOST[:PORT]');
  }
  if (url.password !== '')
    throw invalidHost(text.replace(url.password, '***'), 'passwords in ssh:// are not supported; use a key');
  return {
    kind: 'ssh',
    hostName: url.hostname.replace(/^\[|\]$/g, ''),
    user: url.username === '' ? undefined : decodeURIComponent(url.username),
    port: url.port === '' ? undefined : Number(url.port),
    socketPath: url.pathname === '' || url.pathname === '/' ? undefined : decodeURIComponent(url.pathname),
  };
}

function bracketIpv6(hostName: string): string {
  return hostName.includes(':') ? `[${hostName}]` : hostName;
}

function invalidHost(text: string, remedy: string): EngineError {
  return new EngineError('invalid-argument', `unable to parse docker host \`${text}\`: ${remedy}`);
}
