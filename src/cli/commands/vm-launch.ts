import { open } from 'node:fs/promises';
import type { GuestLaunchMessage, GuestLaunchRequest, GuestView } from '../../wire/guest.ts';
import { EngineError, systemErrorCode } from '../../core/errors.ts';
import { ApiError } from '../../client/api-error.ts';
import { defineCommand, printLine, type CommandContext } from '../command.ts';
import { parseBytes } from '../flags/quantities.ts';
import { abortOnSignals } from './disk-flags.ts';

/** cloud-init's user-data is text; what is longer is a wrong file. */
const MAXIMUM_USER_DATA_BYTES = 1024 * 1024;

const oneOf =
  (...words: readonly string[]) =>
  (text: string): void => {
    if (!words.includes(text)) throw new Error(`it is ${words.join(' or ')}`);
  };

export const vmLaunchCommand = defineCommand({
  usage: '[OPTIONS] IMAGE [NAME]',
  flags: {
    autostart: { kind: 'boolean', summary: 'Start it with the daemon too, unless it was stopped' },
    'cloud-init': {
      kind: 'string',
      summary: "cloud-init user-data for the guest's first boot; - reads standard input",
      value: 'file',
    },
    cpus: { kind: 'integer', short: 'c', summary: 'Virtual CPUs (default 2)' },
    disk: {
      kind: 'string',
      short: 'd',
      summary: "Size of its disk (default the image's)",
      value: 'size',
      check: parseBytes,
    },
    firmware: { kind: 'string', summary: 'bios or uefi (default bios)', check: oneOf('bios', 'uefi') },
    'max-cpus': {
      kind: 'integer',
      summary: 'Virtual CPUs that it can be given while it runs (default four times as many, in emulation none more)',
    },
    'max-memory': {
      kind: 'string',
      summary: 'Memory that it can be given while it runs (default four times as much)',
      value: 'size',
      check: parseBytes,
    },
    memory: { kind: 'string', short: 'm', summary: 'Memory (default 1G)', value: 'size', check: parseBytes },
    network: { kind: 'string', summary: 'bridge or none (default bridge)', check: oneOf('bridge', 'none') },
    'no-wait': { kind: 'boolean', summary: 'Return once it boots, not only once it is ready' },
    timeout: { kind: 'integer', summary: 'Seconds to wait until it is ready (default 300)' },
  },
  arity: { min: 1, max: 2 },
  async run(context, flags, [image = '', name]) {
    using signals = abortOnSignals();
    const request: GuestLaunchRequest = {
      image,
      name,
      vcpus: flags.cpus,
      memoryBytes: flags.memory === undefined ? undefined : parseBytes(flags.memory),
      maxVcpus: flags['max-cpus'],
      maxMemoryBytes: flags['max-memory'] === undefined ? undefined : parseBytes(flags['max-memory']),
      diskBytes: flags.disk === undefined ? undefined : parseBytes(flags.disk),
      userData: flags['cloud-init'] === undefined ? undefined : await readUserData(context, flags['cloud-init']),
      network: flags.network as 'bridge' | 'none' | undefined,
      firmware: flags.firmware as 'bios' | 'uefi' | undefined,
      autostart: flags.autostart,
      wait: flags['no-wait'] !== true,
      timeoutSeconds: flags.timeout,
    };
    const messages = await context.client().guests.launch(request, signals);
    const guest = await showLaunch(context, messages);
    printLine(context.stdout, guest.name);
    describeAccess(context, guest);
    const failed = guest.cloudInit !== undefined && !['done', 'disabled'].includes(guest.cloudInit.status);
    return failed ? 1 : 0;
  },
});

/** One line a step; the phase it belongs to is named once. Resolves with the guest. */
async function showLaunch(context: CommandContext, messages: AsyncIterable<GuestLaunchMessage>): Promise<GuestView> {
  const startedMs = performance.now();
  for await (const message of messages) {
    if ('guest' in message) return message.guest;
    if ('error' in message) throw new ApiError(message.errorDetail.code, message.errorDetail.message);
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(0).padStart(3);
    printLine(context.stderr, `${seconds} s  ${message.phase}: ${message.text}`);
  }
  throw new EngineError('unavailable', 'the daemon went away during the launch; see: bulkhead vm list');
}

function describeAccess(context: CommandContext, guest: GuestView): void {
  const lines = [
    ...(guest.network ? [`address: ${guest.network.ipv4Address}`] : []),
    ...(guest.isAgentOpen ? [`run a program: bulkhead vm exec ${guest.name} -- uname -a`] : []),
    `console: bulkhead vm console ${guest.name}`,
  ];
  for (const line of lines) printLine(context.stderr, line);
}

async function readUserData(context: CommandContext, path: string): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  const take = async (source: AsyncIterable<unknown>): Promise<string> => {
    for await (const chunk of source) {
      const buffer = Buffer.from(chunk as Buffer);
      bytes += buffer.length;
      if (bytes > MAXIMUM_USER_DATA_BYTES)
        throw new EngineError('limit-exceeded', `${path}: user-data is at most ${MAXIMUM_USER_DATA_BYTES} bytes long`);
      chunks.push(buffer);
    }
    return Buffer.concat(chunks).toString('utf8');
  };
  if (path === '-') return await take(context.stdin);
  try {
    await using file = await open(path, 'r');
    return await take(file.createReadStream({ autoClose: false }));
  } catch (error) {
    if (error instanceof EngineError) throw error;
    throw new EngineError('not-found', `cannot read --cloud-init ${path}: ${systemErrorCode(error)}`, { cause: error });
  }
}
