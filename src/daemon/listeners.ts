import { readFileSync } from 'node:fs';
import type { ListenerSpec } from '../api/listener.ts';
import { EngineError } from '../core/errors.ts';
import type { DaemonSettings } from './daemon-options.ts';

/** First descriptor that systemd passes. Source: sd_listen_fds(3). */
const FIRST_PASSED_FD = 3;

/** `--host` addresses as what the API server listens on. TCP without client certificates is for loopback only. */
export function planListeners(settings: DaemonSettings): ListenerSpec[] {
  return settings.hosts.map((address) => planListener(address, settings));
}

function planListener(address: string, settings: DaemonSettings): ListenerSpec {
  if (address.startsWith('unix://')) return { kind: 'unix', path: address.slice('unix://'.length) };
  if (address.startsWith('fd://')) return { kind: 'fd', fd: Number(address.slice('fd://'.length)) || FIRST_PASSED_FD };
  const match = /^tcp:\/\/(\[[^\]]+\]|[^:/]+):(\d+)$/.exec(address);
  const host = match?.[1]?.replaceAll(/[[\]]/g, '');
  if (!host)
    throw new EngineError('invalid-argument', `--host ${address}: write unix://PATH, tcp://ADDRESS:PORT or fd://`);
  const port = Number(match?.[2]);
  if (settings.tlsverify) return { kind: 'tcp', host, port, tls: readCertificates(settings) };
  throw new EngineError(
    'invalid-argument',
    `--host ${address}: whoever reaches this port would be root here; add --tlsverify with --tlscacert, --tlscert and --tlskey`,
  );
}

function readCertificates(settings: DaemonSettings): NonNullable<Extract<ListenerSpec, { kind: 'tcp' }>['tls']> {
  const read = (option: 'tlscacert' | 'tlscert' | 'tlskey'): Buffer => {
    const path = settings[option];
    if (!path) throw new EngineError('invalid-argument', `--tlsverify needs --${option} FILE`);
    try {
      return readFileSync(path);
    } catch (error) {
      throw new EngineError('invalid-argument', `--${option} ${path} cannot be read`, { cause: error });
    }
  };
  return {
    ca: read('tlscacert'),
    cert: read('tlscert'),
    key: read('tlskey'),
    requestCert: true,
    rejectUnauthorized: true,
  };
}
