import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Writable } from 'node:stream';
import { DiskImages } from '../../src/machine/disks/disk-images.ts';
import { runCli } from '../../src/cli/main.ts';

export interface CliOutcome {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CliOptions {
  readonly stdin?: string;
  readonly environment?: Record<string, string>;
}

/** Runs the CLI in this process on streams of its own. */
export async function callCli(argv: readonly string[], options: CliOptions = {}): Promise<CliOutcome> {
  const stdout = collector();
  const stderr = collector();
  const stdin = new PassThrough();
  stdin.end(options.stdin ?? '');
  const exitCode = await runCli(argv, {
    stdin,
    stdout: stdout.sink,
    stderr: stderr.sink,
    environment: options.environment ?? {},
    external: { daemon: { summary: 'Run the daemon', run: async (words) => (words.length === 0 ? 0 : 9) } },
    disks: (allowedDirectories) => Promise.resolve(new DiskImages({ allowedDirectories })),
  });
  return { exitCode, stdout: stdout.text(), stderr: stderr.text() };
}

export async function makeDirectory(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'bulkhead-cli-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

function collector(): { sink: Writable; text: () => string } {
  const chunks: Buffer[] = [];
  const sink = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      chunks.push(Buffer.from(chunk));
      done();
    },
  });
  return { sink, text: () => Buffer.concat(chunks).toString('utf8') };
}
