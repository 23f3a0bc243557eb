import { execa } from 'execa';
import { EngineError } from '../core/errors.ts';

export interface ProgramOptions {
  /** What the program is run for, as the end of "cannot …". */
  readonly purpose: string;
  /** Milliseconds; 0 waits without an end, for what a signal cancels. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** Gets what the program writes to its standard output as it comes, for progress. */
  readonly onOutput?: (text: string) => void;
  /** The same for its standard errors. */
  readonly onErrorOutput?: (text: string) => void;
  /** Exit codes that are answers, not failures, beside 0. */
  readonly acceptedExitCodes?: readonly number[];
}

const DEFAULT_TIMEOUT_MS = 30_000;
/** What is kept of each output stream. */
const MAXIMUM_OUTPUT_CHARACTERS = 4 * 1024 * 1024;

/** Runs a helper program to its end and returns its output. A failure is an error that quotes what the program said. */
export async function runProgram(program: string, args: readonly string[], options: ProgramOptions): Promise<string> {
  const running = execa(program, args, {
    stdin: 'ignore',
    ...(options.signal ? { cancelSignal: options.signal } : {}),
    timeout: options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
    maxBuffer: MAXIMUM_OUTPUT_CHARACTERS,
    reject: false,
  });
  const { onOutput, onErrorOutput } = options;
  if (onOutput) running.stdout.on('data', (chunk: Buffer) => onOutput(chunk.toString('latin1')));
  if (onErrorOutput) running.stderr.on('data', (chunk: Buffer) => onErrorOutput(chunk.toString('utf8')));
  const result = await running;
  if (!result.failed) return String(result.stdout);
  if (result.exitCode !== undefined && options.acceptedExitCodes?.includes(result.exitCode))
    return String(result.stdout);
  if (result.code === 'ENOENT') {
    throw new EngineError('unavailable', `cannot ${options.purpose}: the program ${program} is not installed`, {
      cause: result,
    });
  }
  if (result.isCanceled) throw new EngineError('cancelled', `cannot ${options.purpose}: cancelled`, { cause: result });
  const said = String(result.stderr || result.stdout || result.shortMessage)
    .trim()
    .slice(0, 1000);
  throw new EngineError('internal', `cannot ${options.purpose}: ${program}: ${said}`, { cause: result });
}
