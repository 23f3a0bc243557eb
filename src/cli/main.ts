import type { BulkheadClient, connect } from '../client/index.ts';
import { CATALOGUE, findClosestName, findCommand, GROUPS, type CatalogueEntry } from './catalogue.ts';
import type { Command, CommandContext, ExternalCommand } from './command.ts';
import { describeError, exitCodeOf, ExitRequest, EXIT_RUN_FAILED, EXIT_USAGE } from './exit-code.ts';
import { parseFlags, UsageError } from './flags/parse-flags.ts';
import { configDirectoryOf, GLOBAL_FLAGS, planConnection, type GlobalFlags } from './global-flags.ts';
import { BULKHEAD_VERSION } from './version.ts';

export interface Surroundings {
  readonly stdin: CommandContext['stdin'];
  readonly stdout: CommandContext['stdout'];
  readonly stderr: CommandContext['stderr'];
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Commands of other rooms by name (`daemon`, `doctor`). */
  readonly external: Readonly<Record<string, ExternalCommand>>;
  /** Disk images on this host; loaded when it is called. */
  readonly disks: CommandContext['disks'];
}

/**
 * The CLI: parse → client → render. Resolves with the exit code; says itself what went wrong.
 * @param argv what follows the program's name
 */
export async function runCli(argv: readonly string[], surroundings: Surroundings): Promise<number> {
  let debug = surroundings.environment['DEBUG'] === '1';
  try {
    const { flags, words, help } = parseFlags(argv, GLOBAL_FLAGS, false);
    debug ||= flags.debug ?? false;
    if (flags.version === true && !help) {
      surroundings.stdout.write(`Bulkhead version ${BULKHEAD_VERSION}\n`);
      return 0;
    }
    if (help || words.length === 0) return await showOverview(surroundings, undefined);
    return await dispatch(surroundings, flags, words);
  } catch (error) {
    if (!(error instanceof ExitRequest)) {
      surroundings.stderr.write(`${error instanceof UsageError ? 'bulkhead: ' : ''}${describeError(error)}\n`);
      if (debug) surroundings.stderr.write(`${describeCauses(error)}\n`);
    }
    return exitCodeOf(error);
  }
}

async function dispatch(surroundings: Surroundings, flags: GlobalFlags, words: readonly string[]): Promise<number> {
  const [first = '', second] = words;
  const external = Object.hasOwn(surroundings.external, first) ? surroundings.external[first] : undefined;
  if (external !== undefined) return (await external.run(words.slice(1))) ?? 0;
  if (first === 'help') return showHelp(surroundings, words.slice(1));
  const found = findCommand(words);
  if (found !== undefined) return runCommand(surroundings, flags, found.entry, found.spelled, found.rest);
  if (Object.hasOwn(GROUPS, first) && (second === undefined || second === '--help' || second === '-h'))
    return showOverview(surroundings, first);
  throw unknownCommand(surroundings, words);
}

async function runCommand(
  surroundings: Surroundings,
  flags: GlobalFlags,
  entry: CatalogueEntry,
  spelled: string,
  rest: readonly string[],
): Promise<number> {
  const command = await entry.load();
  const usage = `Usage:  bulkhead ${spelled} ${command.usage}`.trimEnd();
  try {
    const parsed = parseFlags(rest, command.flags, command.interspersed ?? true);
    if (parsed.help) {
      const { formatCommandHelp } = await import('./help.ts');
      surroundings.stdout.write(await formatCommandHelp(entry, spelled, command));
      return 0;
    }
    checkArity(command, spelled, parsed.words.length);
    let client: BulkheadClient | undefined;
    const connectLoaded: typeof connect | undefined =
      command.isOffline?.(parsed.flags) === true ? undefined : (await import('../client/index.ts')).connect;
    const context: CommandContext = {
      // Read when they are needed: opening stdin costs time, and a stdin that was opened is no longer the child's alone.
      get stdin() {
        return surroundings.stdin;
      },
      get stdout() {
        return surroundings.stdout;
      },
      get stderr() {
        return surroundings.stderr;
      },
      environment: surroundings.environment,
      disks: surroundings.disks,
      configDirectory: configDirectoryOf(flags, surroundings.environment),
      client: () => {
        if (connectLoaded === undefined) throw new Error(`bulkhead ${spelled} said that it asks no daemon, and did`);
        return (client ??= connectLoaded(planConnection(flags, surroundings.environment)));
      },
    };
    try {
      return (await command.run(context, parsed.flags, parsed.words)) ?? 0;
    } finally {
      client?.close();
    }
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    surroundings.stderr.write(
      `${describeError(error)}\n\n${usage}\n\nRun 'bulkhead ${spelled} --help' for more information\n`,
    );
    throw new ExitRequest(entry.name === 'run' ? EXIT_RUN_FAILED : EXIT_USAGE);
  }
}

function checkArity(command: Command, spelled: string, count: number): void {
  const { min, max } = command.arity;
  if (count >= min && (max === undefined || count <= max)) return;
  const plural = (number: number): string => `${number} argument${number === 1 ? '' : 's'}`;
  const name = `bulkhead: 'bulkhead ${spelled}'`;
  if (max === 0) throw new UsageError(`${name} accepts no arguments`);
  if (max === min) throw new UsageError(`${name} requires ${plural(min)}`);
  if (max === undefined) throw new UsageError(`${name} requires at least ${plural(min)}`);
  if (min === 0) throw new UsageError(`${name} requires at most ${plural(max)}`);
  throw new UsageError(`${name} requires at least ${min} and at most ${plural(max)}`);
}

function unknownCommand(surroundings: Surroundings, words: readonly string[]): UsageError {
  const [first = '', second = ''] = words;
  const inGroup = Object.hasOwn(GROUPS, first);
  const names = [
    ...CATALOGUE.filter((entry) => entry.hidden !== true).flatMap((entry) => [entry.name, ...(entry.aliases ?? [])]),
    ...Object.keys(GROUPS),
    ...Object.keys(surroundings.external),
  ];
  const typed = inGroup ? `${first} ${second}` : first;
  const closest = findClosestName(
    typed,
    names.filter((name) => name.includes(' ') === inGroup),
  );
  const hint = closest === undefined ? '' : `; did you mean: bulkhead ${closest}`;
  return new UsageError(
    `unknown command: bulkhead ${typed}${hint}\n\nRun 'bulkhead ${inGroup ? `${first} ` : ''}--help' for more information`,
  );
}

async function showHelp(surroundings: Surroundings, words: readonly string[]): Promise<number> {
  const found = findCommand(words);
  const group = words[0];
  if (found === undefined)
    return showOverview(surroundings, group !== undefined && Object.hasOwn(GROUPS, group) ? group : undefined);
  const { formatCommandHelp } = await import('./help.ts');
  surroundings.stdout.write(await formatCommandHelp(found.entry, found.spelled, await found.entry.load()));
  return 0;
}

async function showOverview(surroundings: Surroundings, group: string | undefined): Promise<number> {
  const { formatOverview } = await import('./help.ts');
  surroundings.stdout.write(await formatOverview(group, surroundings.external));
  return 0;
}

function describeCauses(error: unknown): string {
  const lines: string[] = [];
  for (let current = error; current instanceof Error; current = current.cause)
    lines.push(current.stack ?? current.message);
  return lines.join('\ncaused by: ');
}
