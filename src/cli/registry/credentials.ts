import { chmodSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { RegistryAuth } from '../../client/index.ts';
import { EngineError, systemErrorCode } from '../../core/errors.ts';
import { DEFAULT_REGISTRY } from './image-name.ts';

/** The name under which Docker's CLI keeps the credentials of docker.io. */
const DEFAULT_REGISTRY_KEY = 'https://index.docker.io/v1/';

/** User name with which a helper marks that its secret is an identity token. */
const TOKEN_USER = '<token>';

interface DockerConfigFile {
  auths?: Record<string, { auth?: string; identitytoken?: string; username?: string; password?: string }>;
  credsStore?: string;
  credHelpers?: Record<string, string>;
  [key: string]: unknown;
}

/** Under which key a registry's credentials are kept. */
export function credentialKey(registry: string): string {
  return registry === DEFAULT_REGISTRY || registry === 'index.docker.io' || registry === ''
    ? DEFAULT_REGISTRY_KEY
    : registry;
}

/** Credentials for a registry from Docker's `config.json` or the helper it names; undefined when there are none. */
export async function loadRegistryAuth(configDirectory: string, registry: string): Promise<RegistryAuth | undefined> {
  const config = readConfigFile(configDirectory);
  const key = credentialKey(registry);
  const helper = config.credHelpers?.[key] ?? config.credHelpers?.[registry] ?? config.credsStore;
  if (helper !== undefined && helper !== '') {
    const found = await askHelper(helper, 'get', key);
    if (found !== undefined) return found;
  }
  const wanted = hostOf(key);
  const entry =
    config.auths?.[key] ?? Object.entries(config.auths ?? {}).find(([name]) => hostOf(name) === wanted)?.[1];
  if (entry === undefined) return undefined;
  const decoded =
    entry.auth === undefined ? '' : Buffer.from(entry.auth, 'base64').toString('utf8').replace(/\0+$/, '');
  const colon = decoded.indexOf(':');
  const auth: RegistryAuth = {
    serveraddress: key,
    ...(colon === -1 ? {} : { username: decoded.slice(0, colon), password: decoded.slice(colon + 1) }),
    ...(entry.identitytoken ? { identitytoken: entry.identitytoken } : {}),
  };
  return auth.username === undefined && auth.identitytoken === undefined ? undefined : auth;
}

/** Keeps credentials: in the helper if one is configured, else in the file. Resolves with the file's path if they are there unencrypted. */
export async function storeRegistryAuth(
  configDirectory: string,
  registry: string,
  auth: { username: string; password: string; identitytoken: string },
): Promise<string | undefined> {
  const config = readConfigFile(configDirectory);
  const key = credentialKey(registry);
  const helper = config.credHelpers?.[key] ?? config.credHelpers?.[registry] ?? config.credsStore;
  if (helper !== undefined && helper !== '') {
    const secret =
      auth.identitytoken === ''
        ? { Username: auth.username, Secret: auth.password }
        : { Username: TOKEN_USER, Secret: auth.identitytoken };
    await runHelper(helper, 'store', JSON.stringify({ ServerURL: key, ...secret }));
    writeConfigFile(configDirectory, { ...config, auths: { ...config.auths, [key]: {} } });
    return undefined;
  }
  const entry =
    auth.identitytoken === ''
      ? { auth: Buffer.from(`${auth.username}:${auth.password}`).toString('base64') }
      : { auth: Buffer.from(`${auth.username}:`).toString('base64'), identitytoken: auth.identitytoken };
  return writeConfigFile(configDirectory, { ...config, auths: { ...config.auths, [key]: entry } });
}

/** Resolves with false when there was nothing to forget. */
export async function eraseRegistryAuth(configDirectory: string, registry: string): Promise<boolean> {
  const config = readConfigFile(configDirectory);
  const key = credentialKey(registry);
  const helper = config.credHelpers?.[key] ?? config.credHelpers?.[registry] ?? config.credsStore;
  const { [key]: entry, ...others } = config.auths ?? {};
  if (helper !== undefined && helper !== '') await runHelper(helper, 'erase', key).catch(() => '');
  if (entry === undefined) return false;
  writeConfigFile(configDirectory, { ...config, auths: others });
  return true;
}

function readConfigFile(configDirectory: string): DockerConfigFile {
  const path = join(configDirectory, 'config.json');
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return {};
    throw new EngineError(
      'invalid-argument',
      `cannot read ${path}: ${error instanceof Error ? error.message : String(error)}`,
      { cause: error },
    );
  }
  try {
    const config: unknown = text.trim() === '' ? {} : JSON.parse(text);
    if (typeof config === 'object' && config !== null) return config as DockerConfigFile;
  } catch (error) {
    throw new EngineError('invalid-argument', `${path} is not JSON: repair it or move it away`, { cause: error });
  }
  throw new EngineError('invalid-argument', `${path} does not hold a JSON object: repair it or move it away`);
}

/** In one step and readable by its owner only; a link is followed, because dotfile repositories link it. */
function writeConfigFile(configDirectory: string, config: DockerConfigFile): string {
  const { existsSync, realpathSync } = process.getBuiltinModule('node:fs');
  mkdirSync(configDirectory, { recursive: true, mode: 0o700 });
  const named = join(configDirectory, 'config.json');
  const path = existsSync(named) ? realpathSync(named) : named;
  const draft = join(dirname(path), `.config.json.${process.pid}`);
  writeFileSync(draft, `${JSON.stringify(config, null, '\t')}\n`, { mode: 0o600 });
  chmodSync(draft, 0o600);
  renameSync(draft, path);
  return named;
}

async function askHelper(helper: string, verb: 'get', key: string): Promise<RegistryAuth | undefined> {
  const answer = await runHelper(helper, verb, key).catch((error: unknown) => {
    // The protocol tells "nothing there" only by this text. Source: docker-credential-helpers, credentials/error.go.
    if (error instanceof Error && error.message.includes('credentials not found')) return undefined;
    throw error;
  });
  if (answer === undefined) return undefined;
  const found = JSON.parse(answer) as { Username?: string; Secret?: string };
  if (found.Username === TOKEN_USER) return { serveraddress: key, identitytoken: found.Secret ?? '' };
  return { serveraddress: key, username: found.Username ?? '', password: found.Secret ?? '' };
}

/** Runs `docker-credential-HELPER VERB`; the request goes to its stdin, so that no secret is in a command line. */
async function runHelper(helper: string, verb: string, input: string): Promise<string> {
  if (!/^[\w.-]+$/.test(helper))
    throw new EngineError(
      'invalid-argument',
      `invalid credential helper name ${JSON.stringify(helper)} in config.json`,
    );
  const { spawn } = process.getBuiltinModule('node:child_process');
  const program = `docker-credential-${helper}`;
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const child = spawn(program, [verb], { stdio: ['pipe', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  child.once('error', (error) =>
    reject(
      new EngineError('unavailable', `cannot run credential helper ${program}: ${error.message}`, { cause: error }),
    ),
  );
  child.once('close', (code) => {
    if (code === 0) resolve(output);
    else
      reject(
        new EngineError(
          'unavailable',
          `credential helper ${program} ${verb} failed: ${output.trim() || `exit code ${code}`}`,
        ),
      );
  });
  child.stdin.on('error', () => {});
  child.stdin.end(input);
  return promise;
}

/** The host of a key, which older files write as a URL. */
function hostOf(key: string): string {
  return key.replace(/^https?:\/\//, '').replace(/\/.*$/, '');
}
