import yargs, { type Argv } from 'yargs';
import { CATALOGUE, GROUPS, type CatalogueEntry } from './catalogue.ts';
import type { Command, ExternalCommand } from './command.ts';
import type { FlagTable } from './flags/flag-table.ts';
import { GLOBAL_FLAGS } from './global-flags.ts';

/*
 * Help pages, laid out by yargs from the command tables. Loaded only for help: yargs takes 45 ms to load, more than everything else the CLI does
 * before it talks to the daemon, so the tables are parsed by `flags/parse-flags.ts` on the way to a command.
 */

/** Columns of a page when the terminal does not tell. */
const DEFAULT_COLUMNS = 100;

/** The page of one command. */
export async function formatCommandHelp(entry: CatalogueEntry, spelled: string, command: Command): Promise<string> {
  const names = [entry.name, ...(entry.aliases ?? [])];
  const page = newPage().usage(`Usage:  bulkhead ${spelled} ${command.usage}\n\n${entry.summary}`);
  addFlags(page, command.flags);
  if (names.length > 1) page.epilogue(`Aliases:\n  ${names.map((name) => `bulkhead ${name}`).join(', ')}`);
  return `${await page.getHelp()}\n`;
}

/** `bulkhead --help`, or the page of a group of commands. */
export async function formatOverview(
  group: string | undefined,
  external: Readonly<Record<string, ExternalCommand>>,
): Promise<string> {
  const visible = CATALOGUE.filter((entry) => entry.hidden !== true);
  if (group !== undefined) {
    const page = newPage()
      .usage(`Usage:  bulkhead ${group} COMMAND\n\n${GROUPS[group] ?? ''}`)
      .updateStrings({ 'Commands:': 'Commands:' });
    const members = visible.flatMap((entry) => {
      const name = [entry.name, ...(entry.aliases ?? [])].find((candidate) => candidate.startsWith(`${group} `));
      return name === undefined ? [] : [{ name: name.slice(group.length + 1), summary: entry.summary }];
    });
    for (const { name, summary } of members.sort((left, right) => (left.name < right.name ? -1 : 1)))
      page.command(name, summary);
    page.epilogue(`Run 'bulkhead ${group} COMMAND --help' for more information on a command.`);
    return `${await page.getHelp()}\n`;
  }
  const page = newPage().usage(
    'Usage:  bulkhead [OPTIONS] COMMAND\n\nEvery container in a micro-VM of its own, or on the host kernel',
  );
  addFlags(page, GLOBAL_FLAGS);
  const commands = [
    ...visible.filter((entry) => entry.common === true),
    ...Object.entries(external).map(([name, { summary }]) => ({ name, summary })),
    ...Object.entries(GROUPS).map(([name, summary]) => ({ name, summary })),
    ...visible.filter((entry) => entry.common !== true && !entry.name.includes(' ')),
  ];
  for (const { name, summary } of commands) page.command(name, summary);
  page.epilogue("Run 'bulkhead COMMAND --help' for more information on a command.");
  return `${await page.getHelp()}\n`;
}

function newPage(): Argv {
  const columns = process.stdout.columns;
  return yargs([])
    .scriptName('')
    .help(false)
    .version(false)
    .locale('en')
    .parserConfiguration({ 'boolean-negation': false })
    .wrap(columns === undefined ? DEFAULT_COLUMNS : Math.min(columns, 120));
}

function addFlags(page: Argv, flags: FlagTable): void {
  const sorted = Object.entries(flags).toSorted(([first], [second]) => (first < second ? -1 : 1));
  for (const [name, { kind, short, summary, value, hidden }] of sorted) {
    if (hidden === true) continue;
    page.option(name, {
      ...(short === undefined ? {} : { alias: short }),
      describe: value === undefined ? summary : `${summary}  <${value}>`,
      ...(kind === 'boolean'
        ? { type: 'boolean' as const }
        : kind === 'integer'
          ? { type: 'number' as const }
          : { type: 'string' as const }),
      ...(kind === 'list' || kind === 'words' ? { array: true } : {}),
    });
  }
}
