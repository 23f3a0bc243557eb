import type { VersionAnswer } from '../../client/index.ts';
import { NEWEST_API_VERSION } from '../../client/newest-api-version.ts';
import { defineCommand } from '../command.ts';
import { describeError, exitCodeOf } from '../exit-code.ts';
import { alignTable } from '../render/table.ts';
import { BULKHEAD_VERSION } from '../version.ts';

export const versionCommand = defineCommand({
  usage: '[OPTIONS]',
  flags: {
    client: { kind: 'boolean', summary: 'Show the client only; no daemon is asked' },
    format: { kind: 'string', short: 'f', summary: "'json' or a Go template", value: 'format' },
  },
  arity: { min: 0, max: 0 },
  isOffline: (flags) => flags.client === true,
  async run(context, flags) {
    const client = {
      Platform: { Name: 'Bulkhead' },
      Version: BULKHEAD_VERSION,
      ApiVersion: NEWEST_API_VERSION,
      DefaultAPIVersion: NEWEST_API_VERSION,
      NodeVersion: process.version,
      Os: 'linux',
      Arch: process.arch === 'x64' ? 'amd64' : process.arch,
    };
    let server: VersionAnswer | null = null;
    let failure: unknown;
    if (flags.client !== true) {
      try {
        client.ApiVersion = await context.client().apiVersion();
        server = await context.client().system.version();
      } catch (error) {
        failure = error;
      }
    }
    if (flags.format !== undefined) {
      const { formatValue } = await import('../render/format-rows.ts');
      context.stdout.write(`${formatValue({ Client: client, Server: server }, flags.format)}\n`);
    } else context.stdout.write(formatClient(client) + (server === null ? '' : `\n${formatServer(server)}`));
    if (failure === undefined) return 0;
    context.stderr.write(`${describeError(failure)}\n`);
    return exitCodeOf(failure);
  },
});

function formatClient(
  client: Readonly<Record<'ApiVersion' | 'DefaultAPIVersion' | 'NodeVersion' | 'Os' | 'Arch', string>>,
): string {
  const api =
    client.ApiVersion === client.DefaultAPIVersion
      ? client.ApiVersion
      : `${client.ApiVersion} (downgraded from ${client.DefaultAPIVersion})`;
  return formatFields('Client: Bulkhead', [
    ['Version', BULKHEAD_VERSION],
    ['API version', api],
    ['Node version', client.NodeVersion],
    ['OS/Arch', `${client.Os}/${client.Arch}`],
  ]);
}

function formatServer(server: VersionAnswer): string {
  const title = server.Platform?.Name ? `Server: ${server.Platform.Name}` : 'Server:';
  const components = server.Components ?? [];
  const lines = components.map((component) => {
    const details = component.Details;
    const fields: [string, unknown][] =
      component.Name === 'Engine'
        ? [
            ['Version', component.Version],
            ['API version', `${server.ApiVersion} (minimum version ${server.MinAPIVersion})`],
            ['Go version', details['GoVersion']],
            ['Git commit', details['GitCommit']],
            ['Built', formatBuildTime(details['BuildTime'])],
            ['OS/Arch', `${server.Os}/${server.Arch}`],
            ['Experimental', details['Experimental']],
          ]
        : [['Version', component.Version], ...Object.entries(details)];
    return formatFields(component.Name, fields, ' ');
  });
  if (components.length === 0) {
    lines.push(
      formatFields(
        'Engine',
        [
          ['Version', server.Version],
          ['API version', `${server.ApiVersion} (minimum version ${server.MinAPIVersion})`],
          ['OS/Arch', `${server.Os}/${server.Arch}`],
          ['Kernel', server.KernelVersion],
        ],
        ' ',
      ),
    );
  }
  return `${title}\n${lines.join('')}`;
}

/** Title and a column of values; what is not known is left out. */
function formatFields(title: string, fields: readonly (readonly [string, unknown])[], indent = ''): string {
  const known = fields.filter(([, value]) => value !== undefined && value !== null && value !== '');
  const colon = title.includes(':') ? '' : ':';
  return `${indent}${title}${colon}\n${alignTable(
    known.map(([name, value]) => `${indent} ${name}:\t${String(value)}`),
    20,
    1,
  )}\n`;
}

/** RFC 3339 as Docker prints a build's time: `Sun Nov  1 00:00:00 2026`. */
function formatBuildTime(text: string | undefined): string | undefined {
  const date = text === undefined ? undefined : new Date(text);
  if (date === undefined || Number.isNaN(date.getTime())) return text;
  const [weekday = '', day = '', month = '', year = '', time = ''] = date.toUTCString().replace(',', '').split(' ');
  return `${weekday} ${month} ${String(Number(day)).padStart(2)} ${time} ${year}`;
}
