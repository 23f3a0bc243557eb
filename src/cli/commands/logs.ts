import { demultiplex, relay } from '../../client/index.ts';
import { defineCommand } from '../command.ts';
import { parseMoment } from '../flags/quantities.ts';
import { UsageError } from '../flags/parse-flags.ts';

export const logsCommand = defineCommand({
  usage: '[OPTIONS] CONTAINER',
  flags: {
    details: { kind: 'boolean', summary: 'Show extra details provided to logs' },
    follow: { kind: 'boolean', short: 'f', summary: 'Follow log output' },
    since: {
      kind: 'string',
      summary: 'Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)',
    },
    tail: { kind: 'string', short: 'n', summary: 'Number of lines to show from the end of the logs (default "all")' },
    timestamps: { kind: 'boolean', short: 't', summary: 'Show timestamps' },
    until: { kind: 'string', summary: 'Show logs before a timestamp or relative (e.g. "42m" for 42 minutes)' },
  },
  arity: { min: 1, max: 1 },
  async run(context, flags, [name = '']) {
    const since = moment('since', flags.since);
    const until = moment('until', flags.until);
    const client = context.client();
    const { Id, Config } = await client.containers.inspect(name);
    const output = await client.containers.logs(Id, {
      stdout: true,
      stderr: true,
      follow: flags.follow ?? false,
      timestamps: flags.timestamps ?? false,
      details: flags.details ?? false,
      tail: flags.tail ?? 'all',
      since,
      until,
    });
    if (Config.Tty) await relay(output, context.stdout);
    else await demultiplex(output, { stdout: context.stdout, stderr: context.stderr });
  },
});

function moment(flag: string, text: string | undefined): string | undefined {
  if (text === undefined || text === '') return undefined;
  try {
    return parseMoment(text, Date.now());
  } catch (error) {
    throw new UsageError(`invalid value for "${flag}": ${error instanceof Error ? error.message : String(error)}`);
  }
}
