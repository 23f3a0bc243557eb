import type { Readable, Writable } from 'node:stream';
import type { BulkheadClient } from '../client/index.ts';
import type { DiskTools } from '../wire/guest-disk.ts';
import type { FlagTable, FlagValues } from './flags/flag-table.ts';

/** What a command gets of the world. */
export interface CommandContext {
  /** Made at the first call; the daemon is not asked for anything by that. Not for offline commands. */
  client(): BulkheadClient;
  /** Disk images on this host. Images may refer to files in these directories beside their own. */
  disks(allowedDirectories: readonly string[]): Promise<DiskTools>;
  readonly stdin: Readable & { readonly isTTY?: boolean };
  readonly stdout: Writable & { readonly isTTY?: boolean; readonly columns?: number };
  readonly stderr: Writable & { readonly isTTY?: boolean };
  /** Directory of `config.json` with registry credentials. */
  readonly configDirectory: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** Prints text, a line end after it. */
export function printLine(sink: Writable, text: string): void {
  sink.write(`${text}\n`);
}

export interface Command<Table extends FlagTable = FlagTable> {
  /** After the command's name: `[OPTIONS] IMAGE [COMMAND] [ARG...]`. */
  readonly usage: string;
  readonly flags: Table;
  /** How many words; `max` undefined is any number. */
  readonly arity: { readonly min: number; readonly max?: number };
  /** False: everything after the first word belongs to the program to be run. Default true. */
  readonly interspersed?: boolean;
  /** True: no daemon is asked, so the client need not be loaded. */
  isOffline?(flags: FlagValues<Table>): boolean;
  /** Resolves with the exit code; undefined is 0. */
  run(context: CommandContext, flags: FlagValues<Table>, words: readonly string[]): Promise<number | void>;
}

/** A command whose flags' types are those of its table. */
export function defineCommand<const Table extends FlagTable>(command: Command<Table>): Command {
  return command;
}

/** A command that lives outside this room: it gets its arguments as they are. */
export interface ExternalCommand {
  readonly summary: string;
  run(argv: string[]): Promise<number | void>;
}
