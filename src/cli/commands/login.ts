import { createInterface } from 'node:readline/promises';
import { Writable } from 'node:stream';
import { defineCommand, printLine, type CommandContext } from '../command.ts';
import { UsageError } from '../flags/parse-flags.ts';
import { credentialKey, eraseRegistryAuth, loadRegistryAuth, storeRegistryAuth } from '../registry/credentials.ts';
import { DEFAULT_REGISTRY } from '../registry/image-name.ts';

export const loginCommand = defineCommand({
  usage: '[OPTIONS] [SERVER]',
  flags: {
    password: { kind: 'string', short: 'p', summary: 'Password or Personal Access Token (PAT)' },
    'password-stdin': { kind: 'boolean', summary: 'Take the Password or Personal Access Token (PAT) from stdin' },
    username: { kind: 'string', short: 'u', summary: 'Username' },
  },
  arity: { min: 0, max: 1 },
  async run(context, flags, [server = '']) {
    const registry = registryName(server);
    if (flags.password !== undefined) {
      printLine(context.stderr, 'WARNING! Using --password via the CLI is insecure. Use --password-stdin.');
      if (flags['password-stdin'] === true)
        throw new UsageError('conflicting options: cannot specify both --password and --password-stdin');
    }
    if (flags['password-stdin'] === true && !flags.username)
      throw new UsageError('the --password-stdin option requires --username to be set');
    const known = flags.username === undefined ? await loadRegistryAuth(context.configDirectory, registry) : undefined;
    const username = flags.username ?? known?.username ?? (await ask(context, 'Username: ', false));
    const password =
      flags['password-stdin'] === true
        ? await readPassword(context)
        : (flags.password ?? known?.password ?? (await ask(context, 'Password: ', true)));
    if (username === '' || password === '') throw new UsageError('username and password must not be empty');
    const answer = await context.client().system.login({ username, password, serveraddress: credentialKey(registry) });
    const file = await storeRegistryAuth(context.configDirectory, registry, {
      username,
      password,
      identitytoken: answer.IdentityToken,
    });
    if (file !== undefined) {
      printLine(
        context.stderr,
        `\nWARNING! Your credentials are stored unencrypted in '${file}'.\nConfigure a credential helper ("credsStore" in that file) to remove this warning.\n`,
      );
    }
    printLine(context.stdout, answer.Status || 'Login Succeeded');
  },
});

export const logoutCommand = defineCommand({
  usage: '[SERVER]',
  flags: {},
  arity: { min: 0, max: 1 },
  async run(context, _flags, [server = '']) {
    const registry = registryName(server);
    const key = credentialKey(registry);
    const erased = await eraseRegistryAuth(context.configDirectory, registry);
    printLine(context.stdout, erased ? `Removing login credentials for ${key}` : `Not logged in to ${key}`);
  },
});

function registryName(server: string): string {
  const name = server.replace(/^https?:\/\//, '').replace(/\/+$/, '');
  return name === '' || name.startsWith('index.docker.io') ? DEFAULT_REGISTRY : name;
}

/** All of stdin but one line end. */
async function readPassword(context: CommandContext): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of context.stdin as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks)
    .toString('utf8')
    .replace(/\r?\n$/, '');
}

/** Asks on the terminal; a hidden answer is not echoed. */
async function ask(context: CommandContext, question: string, hidden: boolean): Promise<string> {
  if (context.stdin.isTTY !== true)
    throw new UsageError(
      'cannot perform an interactive login from a non TTY device; use --username and --password-stdin',
    );
  const echo = new Writable({
    write: (_chunk, _encoding, done) => {
      done();
    },
  });
  context.stdout.write(question);
  const terminal = createInterface({ input: context.stdin, output: hidden ? echo : context.stdout, terminal: hidden });
  try {
    return (await terminal.question('')).trim();
  } finally {
    terminal.close();
    if (hidden) context.stdout.write('\n');
  }
}
