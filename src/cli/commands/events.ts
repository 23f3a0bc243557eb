import type { EventMessage } from '../../client/index.ts';
import { defineCommand, printLine } from '../command.ts';
import { parseMoment } from '../flags/quantities.ts';
import { FILTER_FLAG, parseFilters } from '../flags/shared-flags.ts';
import { UsageError } from '../flags/parse-flags.ts';
import { formatRfc3339Nano } from '../render/units.ts';

export const eventsCommand = defineCommand({
  usage: '[OPTIONS]',
  flags: {
    filter: FILTER_FLAG,
    format: { kind: 'string', summary: "'json' or a Go template", value: 'format' },
    since: { kind: 'string', summary: 'Show all events created since timestamp' },
    until: { kind: 'string', summary: 'Stream events until this timestamp' },
  },
  arity: { min: 0, max: 0 },
  async run(context, flags) {
    const format = flags.format?.trim();
    const render = format === undefined || format === '' ? undefined : await compileRenderer(format);
    const events = await context.client().system.events({
      since: moment('since', flags.since),
      until: moment('until', flags.until),
      filters: parseFilters(flags.filter),
    });
    for await (const event of events)
      printLine(context.stdout, render === undefined ? describeEvent(event) : render(event));
  },
});

async function compileRenderer(format: string): Promise<(event: EventMessage) => string> {
  if (format === 'json') return (event) => JSON.stringify(event);
  const { compileFormat } = await import('../render/format-rows.ts');
  const { evaluateTemplate } = await import('../go-template/evaluate-template.ts');
  const template = compileFormat(format);
  // Go's field names beside the wire's.
  return (event) =>
    evaluateTemplate(template, {
      ...event,
      ID: event['id'] ?? '',
      Status: event['status'] ?? '',
      From: event['from'] ?? '',
      Scope: event.scope,
      Time: event.time,
      TimeNano: event.timeNano,
    });
}

/** `TIME TYPE ACTION ID (key=value, …)`. */
export function describeEvent(event: EventMessage): string {
  const time = event.timeNano === 0 ? BigInt(event.time) * 1_000_000_000n : BigInt(event.timeNano);
  const attributes = Object.entries(event.Actor.Attributes)
    .map(([key, value]) => `${key}=${value}`)
    .sort();
  const head = `${formatRfc3339Nano(time)} ${event.Type} ${event.Action} ${event.Actor.ID}`;
  return attributes.length === 0 ? head : `${head} (${attributes.join(', ')})`;
}

function moment(flag: string, text: string | undefined): string | undefined {
  if (text === undefined || text === '') return undefined;
  try {
    return parseMoment(text, Date.now());
  } catch (error) {
    throw new UsageError(`invalid value for "${flag}": ${error instanceof Error ? error.message : String(error)}`);
  }
}
