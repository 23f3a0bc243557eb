import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import { EngineError } from '../../core/errors.ts';
import { parseJson } from '../../core/json.ts';

/*
 * The QEMU guest agent, over its serial port: JSON lines, without ids. Each call opens the port, finds the stream's beginning with
 * `guest-sync-delimited`, asks, and closes. Everything it says comes from the guest and is untrusted.
 * Source: QEMU docs/interop/qemu-ga-ref.
 */

export interface AgentExecSpec {
  readonly path: string;
  readonly args: readonly string[];
  readonly env?: readonly string[];
  readonly input?: Buffer;
}

export interface AgentExecResult {
  /** Absent when a signal ended it. */
  readonly exitCode?: number;
  readonly signalNumber?: number;
  readonly stdout: Buffer;
  readonly stderr: Buffer;
  /** More was written than the agent keeps (16 MiB). */
  readonly isTruncated: boolean;
}

/** The agent keeps at most 16 MiB of each output, base64. */
const MAXIMUM_ANSWER_CHARACTERS = 48 * 1024 * 1024;
const ANSWER_TIMEOUT_MS = 20_000;
const FIRST_POLL_MS = 20;
const LONGEST_POLL_MS = 500;

const startedSchema = z.object({ pid: z.number() });
const statusSchema = z.object({
  exited: z.boolean(),
  exitcode: z.number().optional(),
  signal: z.number().optional(),
  'out-data': z.string().default(''),
  'err-data': z.string().default(''),
  'out-truncated': z.boolean().default(false),
  'err-truncated': z.boolean().default(false),
});

const cpusSchema = z.array(
  z.object({ 'logical-id': z.number(), online: z.boolean(), 'can-offline': z.boolean().default(true) }),
);
const readSchema = z.object({ count: z.number(), 'buf-b64': z.string(), eof: z.boolean() });
/** Of a file, in one call. */
const FILE_PIECE_BYTES = 512 * 1024;

export class GuestAgent {
  readonly #path: string;
  readonly #name: string;
  #tail: Promise<unknown> = Promise.resolve();

  /** @param name of the guest, for errors */
  constructor(path: string, name: string) {
    this.#path = path;
    this.#name = name;
  }

  async ping(): Promise<void> {
    await this.#call('guest-ping', {}, z.unknown());
  }

  /** Has the guest use this many of its CPUs, the first ones, as far as it can; resolves with how many it uses. */
  async useCpus(count: number): Promise<number> {
    const read = async () =>
      (await this.#call('guest-get-vcpus', {}, cpusSchema)).sort(
        (one, other) => one['logical-id'] - other['logical-id'],
      );
    const cpus = await read();
    const vcpus = cpus
      .map((cpu, index) => ({ ...cpu, wanted: index < count || !cpu['can-offline'] }))
      .filter(({ online, wanted }) => online !== wanted)
      .map((cpu) => ({ 'logical-id': cpu['logical-id'], online: cpu.wanted }));
    if (vcpus.length > 0) await this.#call('guest-set-vcpus', { vcpus }, z.number());
    return (await read()).filter(({ online }) => online).length;
  }

  /** Runs a program in the guest to its end. There is no terminal, and its input is what is given here. */
  async exec(spec: AgentExecSpec, signal?: AbortSignal): Promise<AgentExecResult> {
    const { pid } = await this.#call(
      'guest-exec',
      {
        path: spec.path,
        arg: spec.args,
        'capture-output': true,
        ...(spec.env ? { env: spec.env } : {}),
        ...(spec.input ? { 'input-data': spec.input.toString('base64') } : {}),
      },
      startedSchema,
    );
    for (let waitMs = FIRST_POLL_MS; ; waitMs = Math.min(waitMs * 2, LONGEST_POLL_MS)) {
      const status = await this.#call('guest-exec-status', { pid }, statusSchema);
      if (status.exited) {
        return {
          ...(status.exitcode === undefined ? {} : { exitCode: status.exitcode }),
          ...(status.signal === undefined ? {} : { signalNumber: status.signal }),
          stdout: Buffer.from(status['out-data'], 'base64'),
          stderr: Buffer.from(status['err-data'], 'base64'),
          isTruncated: status['out-truncated'] || status['err-truncated'],
        };
      }
      // This agent has no event for an exit.
      await delay(waitMs, undefined, signal ? { signal } : {});
    }
  }

  /** A regular file of the guest, in pieces; an early return closes it too. */
  async *readFile(path: string): AsyncGenerator<Buffer, void, undefined> {
    const handle = await this.#call('guest-file-open', { path, mode: 'r' }, z.number());
    try {
      for (;;) {
        const piece = await this.#call('guest-file-read', { handle, count: FILE_PIECE_BYTES }, readSchema);
        if (piece.count > 0) yield Buffer.from(piece['buf-b64'], 'base64');
        if (piece.eof) return;
      }
    } finally {
      await this.#call('guest-file-close', { handle }, z.unknown());
    }
  }

  /** Makes or replaces a file of the guest. What was written before a failure stays. */
  async writeFile(path: string, content: AsyncIterable<Buffer>): Promise<void> {
    const handle = await this.#call('guest-file-open', { path, mode: 'w' }, z.number());
    try {
      for await (const chunk of content) {
        for (let offset = 0; offset < chunk.length;) {
          const piece = chunk.subarray(offset, offset + FILE_PIECE_BYTES);
          const request = { handle, 'buf-b64': piece.toString('base64') };
          const { count } = await this.#call('guest-file-write', request, z.object({ count: z.number().int().min(1) }));
          offset += count;
        }
      }
      await this.#call('guest-file-flush', { handle }, z.unknown());
    } finally {
      await this.#call('guest-file-close', { handle }, z.unknown());
    }
  }

  /** One call at a time: the port has one reader. */
  async #call<T>(command: string, parameters: Record<string, unknown>, schema: z.ZodType<T>): Promise<T> {
    const mine = this.#tail.then(() => this.#ask(command, parameters));
    this.#tail = mine.catch(() => undefined);
    const result = schema.safeParse(await mine);
    if (result.success) return result.data;
    throw new EngineError('internal', `${this.#name}: the guest's agent answered ${command} in an unknown way`);
  }

  async #ask(command: string, parameters: Record<string, unknown>): Promise<unknown> {
    const socket = connect(this.#path);
    const timeout = setTimeout(() => {
      socket.destroy(
        new EngineError(
          'timed-out',
          `${this.#name}: the guest's agent does not answer; is qemu-guest-agent installed and running in it? look with: bulkhead vm console ${this.#name}`,
        ),
      );
    }, ANSWER_TIMEOUT_MS);
    try {
      const token = Math.floor(Math.random() * 2 ** 31);
      const lines = readLines(socket);
      const request = { execute: 'guest-sync-delimited', arguments: { id: token } };
      // 0xff ends whatever half-read request an earlier caller left in the agent's parser.
      socket.write(Buffer.concat([Buffer.from([0xff]), Buffer.from(`${JSON.stringify(request)}\n`)]));
      while (returnOf(await this.#next(lines)) !== token);
      socket.write(`${JSON.stringify({ execute: command, arguments: parameters })}\n`);
      const parsed = parseLine(await this.#next(lines));
      const error = z.object({ error: z.object({ desc: z.string() }) }).safeParse(parsed);
      if (!error.success) return (parsed as { return?: unknown } | undefined)?.return;
      throw new EngineError('invalid-argument', `${this.#name}: ${error.data.error.desc.slice(0, 500)}`);
    } finally {
      clearTimeout(timeout);
      socket.destroy();
    }
  }

  async #next(lines: AsyncGenerator<string, void, undefined>): Promise<string> {
    const { value } = await lines.next();
    if (value === undefined) throw new EngineError('unavailable', `${this.#name}: the guest's agent hung up`);
    return value;
  }
}

function parseLine(line: string): unknown {
  return parseJson(line.slice(line.lastIndexOf('\xff') + 1));
}

function returnOf(line: string): unknown {
  const parsed = parseLine(line);
  return typeof parsed === 'object' && parsed !== null && 'return' in parsed ? parsed.return : undefined;
}

async function* readLines(socket: Socket): AsyncGenerator<string, void, undefined> {
  let text = '';
  // `for await` would destroy the socket at the first break.
  for await (const chunk of socket.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    text += chunk.toString('latin1');
    if (text.length > MAXIMUM_ANSWER_CHARACTERS)
      throw new EngineError('limit-exceeded', "the guest's agent answers with more than 48 MiB");
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
      const line = text.slice(0, end);
      text = text.slice(end + 1);
      yield line;
    }
  }
}
