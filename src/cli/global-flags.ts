import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { ConnectOptions, TlsOptions } from '../client/index.ts';
import { defineFlags, type FlagValues } from './flags/flag-table.ts';
import { UsageError } from './flags/parse-flags.ts';

/** Flags that stand before the command. */
export const GLOBAL_FLAGS = defineFlags({
  config: {
    kind: 'string',
    summary: 'Location of client config files (default: DOCKER_CONFIG, or ~/.docker)',
    value: 'directory',
  },
  debug: { kind: 'boolean', short: 'D', summary: 'Print the causes of errors' },
  host: {
    kind: 'list',
    short: 'H',
    summary: 'Daemon socket to connect to (default: BULKHEAD_HOST, DOCKER_HOST, the local daemon)',
    value: 'unix://PATH|tcp://HOST:PORT|ssh://HOST',
  },
  tls: { kind: 'boolean', summary: 'Use TLS; implied by --tlsverify' },
  tlscacert: { kind: 'string', summary: 'Trust certs signed only by this CA', value: 'path' },
  tlscert: { kind: 'string', summary: 'Path to TLS certificate file', value: 'path' },
  tlskey: { kind: 'string', summary: 'Path to TLS key file', value: 'path' },
  tlsverify: { kind: 'boolean', summary: 'Use TLS and verify the remote' },
  version: { kind: 'boolean', short: 'v', summary: 'Print version information and quit' },
});

export type GlobalFlags = FlagValues<typeof GLOBAL_FLAGS>;

type Environment = Readonly<Record<string, string | undefined>>;

export function configDirectoryOf(flags: GlobalFlags, environment: Environment): string {
  return flags.config ?? (environment['DOCKER_CONFIG'] || join(homedir(), '.docker'));
}

/** Which daemon: `-H` before the environment. */
export function planConnection(flags: GlobalFlags, environment: Environment): ConnectOptions {
  if (flags.host.length > 1) throw new UsageError('specify only one -H');
  const host = flags.host[0] ?? (environment['BULKHEAD_HOST'] || environment['DOCKER_HOST'] || undefined);
  const verify = flags.tlsverify ?? Boolean(environment['DOCKER_TLS_VERIFY']);
  const usesTls = (flags.tls ?? Boolean(environment['DOCKER_TLS'])) || verify || host?.startsWith('https://') === true;
  return {
    host,
    tls: usesTls ? readTlsFiles(flags, environment, verify) : undefined,
    apiVersion: environment['DOCKER_API_VERSION'] || undefined,
  };
}

/** Files the user named must exist; those of the certificate directory are taken if they do. */
function readTlsFiles(flags: GlobalFlags, environment: Environment, verify: boolean): TlsOptions {
  const directory = environment['DOCKER_CERT_PATH'] || configDirectoryOf(flags, environment);
  const read = (chosen: string | undefined, name: string): string | undefined => {
    try {
      return readFileSync(chosen ?? join(directory, name), 'utf8');
    } catch (error) {
      if (chosen === undefined) return undefined;
      throw new UsageError(`cannot read TLS file ${chosen}: ${error instanceof Error ? error.message : String(error)}`);
    }
  };
  const ca = read(flags.tlscacert, 'ca.pem');
  const cert = read(flags.tlscert, 'cert.pem');
  const key = read(flags.tlskey, 'key.pem');
  return {
    verify,
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
  };
}
