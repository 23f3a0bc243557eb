import { setTimeout as delay } from 'node:timers/promises';
import type { StatsAnswer } from '../../client/index.ts';
import { defineCommand, type CommandContext } from '../command.ts';
import { formatRows } from '../render/format-rows.ts';
import { describeStatsRow, STATS_HEADERS, STATS_TABLE } from '../render/stats-rows.ts';

const REFRESH_MS = 500;
/** As `clear` does it: everything away, and to the top. */
const CLEAR_SCREEN = '\u001b[2J\u001b[H';

interface Shown {
  answer: StatsAnswer | undefined;
  readonly stop: AbortController;
}

export const statsCommand = defineCommand({
  usage: '[OPTIONS] [CONTAINER...]',
  flags: {
    all: { kind: 'boolean', short: 'a', summary: 'Show all containers (default shows just running)' },
    format: { kind: 'string', summary: "'table', 'json', or a Go template", value: 'format' },
    'no-stream': { kind: 'boolean', summary: 'Disable streaming stats and only pull the first result' },
    'no-trunc': { kind: 'boolean', summary: 'Do not truncate output' },
  },
  arity: { min: 0 },
  async run(context, flags, names) {
    const all = flags.all ?? false;
    const { containers } = context.client();
    const known = names.length > 0 ? names : (await containers.list({ all })).map(({ Id }) => Id);
    const print = (rows: readonly (readonly [string, StatsAnswer | undefined])[]): string =>
      formatRows(
        rows.map(([name, answer]) => describeStatsRow(name, answer, flags['no-trunc'] !== true)),
        { format: flags.format, defaultTable: STATS_TABLE, headers: STATS_HEADERS },
      );
    if (flags['no-stream'] === true) {
      // All at once: each answer takes the second between its two samples.
      const answers = await Promise.all(known.map(async (name) => [name, await containers.stats(name)] as const));
      context.stdout.write(print(answers));
      return;
    }
    await follow(context, known, names.length === 0 ? { all } : undefined, print);
  },
});

/** Draws again and again until the user has seen enough. Where none was named, containers come and go as they start and end. */
async function follow(
  context: CommandContext,
  known: readonly string[],
  others: { readonly all: boolean } | undefined,
  print: (rows: readonly (readonly [string, StatsAnswer | undefined])[]) => string,
): Promise<void> {
  const shown = new Map<string, Shown>();
  const ended = new AbortController();
  const add = (name: string): void => {
    if (shown.has(name)) return;
    const entry: Shown = { answer: undefined, stop: new AbortController() };
    shown.set(name, entry);
    watch(context, name, entry).catch((error: unknown) => {
      shown.delete(name);
      // Of one that was named, its absence is an error; the others just go.
      if (!others) ended.abort(error);
    });
  };
  known.forEach(add);
  if (others) {
    void watchEvents(context, add, (id) => {
      if (others.all) return;
      shown.get(id)?.stop.abort();
      shown.delete(id);
    }).catch((error: unknown) => ended.abort(error));
  }
  while (!ended.signal.aborted) {
    const rows = [...shown].map(([name, { answer }]) => [name, answer] as const);
    context.stdout.write(`${CLEAR_SCREEN}${print(rows)}`);
    await delay(REFRESH_MS, undefined, { signal: ended.signal }).catch(() => undefined);
  }
  throw ended.signal.reason;
}

async function watch(context: CommandContext, name: string, entry: Shown): Promise<void> {
  const answers = await context.client().containers.followStats(name, { signal: entry.stop.signal });
  for await (const answer of answers) entry.answer = answer;
}

async function watchEvents(
  context: CommandContext,
  onStart: (id: string) => void,
  onEnd: (id: string) => void,
): Promise<void> {
  const filters = { type: ['container'], event: ['start', 'die'] };
  for await (const event of await context.client().system.events({ filters })) {
    if (event.Action === 'start') onStart(event.Actor.ID);
    else onEnd(event.Actor.ID);
  }
}
