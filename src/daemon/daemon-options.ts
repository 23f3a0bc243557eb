import { readFileSync } from 'node:fs';
import yargs from 'yargs';
import { z } from 'zod';
import { EngineError } from '../core/errors.ts';

const isolationSchema = z.enum(['vm', 'os']);

/** The daemon's settings; the same keys in `--config-file` (JSON) and, as flags, on the command line. Docker's names and meanings where it has them. */
const settingsSchema = z.strictObject({
  hosts: z.array(z.string()).default(['unix:///run/bulkhead/bulkhead.sock']),
  'data-root': z.string().default('/var/lib/bulkhead'),
  'exec-root': z.string().default('/run/bulkhead'),
  pidfile: z.string().optional(),
  isolation: isolationSchema.default('vm'),
  'allowed-isolation': z.array(isolationSchema).default(['vm', 'os']),
  accelerator: z.enum(['auto', 'kvm', 'tcg']).default('auto'),
  pool: z.number().int('a whole number').min(0).max(64).optional(),
  'pool-images': z.boolean().default(true),
  'saved-machines': z.boolean().default(true),
  'guest-aslr': z.boolean().default(true),
  'bridge-prefix': z
    .string()
    .regex(/^[a-z][a-z0-9]{0,4}$/, 'one to five letters and digits, for example bh')
    .default('bh'),
  bip: z.string().optional(),
  'default-address-pools': z.array(z.object({ base: z.string(), size: z.number().int().min(8).max(30) })).default([
    { base: '172.30.0.0/15', size: 16 },
    { base: '10.201.0.0/16', size: 20 },
    { base: '192.168.224.0/20', size: 24 },
  ]),
  'registry-mirrors': z.array(z.string()).default([]),
  'insecure-registries': z.array(z.string()).default([]),
  labels: z.array(z.string()).default([]),
  'log-level': z.enum(['debug', 'info', 'warn', 'error', 'fatal']).default('info'),
  'log-format': z.enum(['text', 'json']).default('text'),
  tlsverify: z.boolean().default(false),
  tlscacert: z.string().optional(),
  tlscert: z.string().optional(),
  tlskey: z.string().optional(),
  'shutdown-containers': z.boolean().default(false),
});

export type DaemonSettings = z.infer<typeof settingsSchema>;

/** Settings of the file, overridden by the flags; what neither says has its default. Wrong ones are named with their allowed values. */
export function parseDaemonOptions(argv: readonly string[]): DaemonSettings {
  const flags = parseFlags(argv);
  const { 'config-file': configFile, ...given } = flags;
  const file = configFile === undefined ? {} : readConfigFile(configFile);
  const result = settingsSchema.safeParse({ ...file, ...given });
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new EngineError(
    'invalid-argument',
    `daemon option ${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'is wrong'}`,
  );
}

function readConfigFile(path: string): object {
  try {
    return z.record(z.string(), z.unknown()).parse(JSON.parse(readFileSync(path, 'utf8')));
  } catch (error) {
    throw new EngineError(
      'invalid-argument',
      `cannot read the configuration file ${path}: it must be one JSON object`,
      { cause: error },
    );
  }
}

function parseFlags(argv: readonly string[]): Record<string, unknown> & { 'config-file'?: string } {
  const list = { type: 'string', array: true, requiresArg: true, nargs: 1 } as const;
  const parsed = yargs([...argv])
    .scriptName('bulkhead daemon')
    .usage('$0 [OPTIONS]\n\nServes the Docker Engine API in the foreground.')
    .parserConfiguration({ 'camel-case-expansion': false, 'strip-aliased': true, 'strip-dashed': false })
    .option('host', { ...list, alias: 'H', describe: 'address to listen on: unix://, tcp://, fd:// (repeatable)' })
    .option('data-root', { type: 'string', describe: 'images and containers [/var/lib/bulkhead]' })
    .option('exec-root', { type: 'string', describe: 'sockets and other files of running things [/run/bulkhead]' })
    .option('pidfile', { type: 'string', describe: 'where to write the process id' })
    .option('isolation', { type: 'string', describe: 'wall of containers whose user names none: vm or os [vm]' })
    .option('allowed-isolation', { ...list, describe: 'walls that clients may ask for (repeatable) [vm, os]' })
    .option('accelerator', { type: 'string', describe: 'auto, kvm or tcg (software emulation) [auto]' })
    .option('pool', {
      type: 'number',
      requiresArg: true,
      describe: 'machines of each size that are kept ready [1 in emulation, else 0]',
    })
    .option('pool-images', {
      type: 'boolean',
      describe:
        'prepare a machine for an image that is started again and again, by running its program in it in advance [true]',
    })
    .option('saved-machines', {
      type: 'boolean',
      describe: 'start machines from a saved one instead of booting [true]',
    })
    .option('guest-aslr', {
      type: 'boolean',
      describe: 'random addresses in machines; off, emulated programs start quicker and are easier to attack [true]',
    })
    .option('bridge-prefix', { type: 'string', describe: 'first letters of our network interfaces [bh]' })
    .option('bip', {
      type: 'string',
      describe: 'address and prefix length of the default bridge, for example 172.30.0.1/16',
    })
    .option('default-address-pool', { ...list, describe: 'base=CIDR,size=N (repeatable)' })
    .option('registry-mirror', { ...list, describe: 'mirror of docker.io (repeatable)' })
    .option('insecure-registry', { ...list, describe: 'registry that may be spoken to without TLS (repeatable)' })
    .option('label', { ...list, describe: 'key=value of this daemon (repeatable)' })
    .option('log-level', { type: 'string', describe: 'debug, info, warn, error or fatal [info]' })
    .option('log-format', { type: 'string', describe: 'text or json [text]' })
    .option('tlsverify', { type: 'boolean', describe: 'TCP clients must show a certificate of --tlscacert' })
    .option('tlscacert', { type: 'string', describe: 'certificate of the clients’ authority' })
    .option('tlscert', { type: 'string', describe: 'certificate of this daemon' })
    .option('tlskey', { type: 'string', describe: 'its key' })
    .option('shutdown-containers', {
      type: 'boolean',
      describe: 'stop the containers too when the daemon is told to end',
    })
    .option('config-file', { type: 'string', describe: 'JSON file with these settings' })
    .strict()
    .fail((message, error) => {
      throw new EngineError('invalid-argument', `${message ?? error.message}; see 'bulkhead daemon --help'`);
    })
    .parseSync();
  const renamed: Readonly<Record<string, string>> = {
    host: 'hosts',
    'default-address-pool': 'default-address-pools',
    'registry-mirror': 'registry-mirrors',
    'insecure-registry': 'insecure-registries',
    label: 'labels',
  };
  const entries = Object.entries(parsed).filter(([key, value]) => key !== '_' && key !== '$0' && value !== undefined);
  const flags = Object.fromEntries(entries.map(([key, value]) => [renamed[key] ?? key, value])) as Record<
    string,
    unknown
  >;
  if (Array.isArray(flags['default-address-pools']))
    flags['default-address-pools'] = flags['default-address-pools'].map(parsePool);
  return flags;
}

function parsePool(value: unknown): { base: string; size: number } {
  const match = /^base=([^,]+),size=(\d+)$/.exec(String(value));
  if (!match?.[1])
    throw new EngineError(
      'invalid-argument',
      `--default-address-pool ${String(value)}: write base=CIDR,size=PREFIXLENGTH`,
    );
  return { base: match[1], size: Number(match[2]) };
}
