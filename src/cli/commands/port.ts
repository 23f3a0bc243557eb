import { defineCommand, printLine } from '../command.ts';
import { EngineError } from '../../core/errors.ts';
import { UsageError } from '../flags/parse-flags.ts';

export const portCommand = defineCommand({
  usage: 'CONTAINER [PRIVATE_PORT[/PROTO]]',
  flags: {},
  arity: { min: 1, max: 2 },
  async run(context, _flags, [name = '', wanted]) {
    const inspected = await context.client().containers.inspect(name);
    const ports = inspected.NetworkSettings?.Ports ?? {};
    const address = ({ HostIp, HostPort }: { HostIp: string; HostPort: string }): string =>
      HostIp.includes(':') ? `[${HostIp}]:${HostPort}` : `${HostIp}:${HostPort}`;
    if (wanted === undefined) {
      const lines = Object.entries(ports).flatMap(([port, bindings]) =>
        (bindings ?? []).map((binding) => `${port} -> ${address(binding)}`),
      );
      for (const line of lines.sort(compareNaturally)) printLine(context.stdout, line);
      return;
    }
    const [number = '', protocol = 'tcp'] = wanted.split('/');
    if (!/^\d{1,5}$/.test(number) || Number(number) > 65535) throw new UsageError(`invalid port '${number}'`);
    const bindings = ports[`${number}/${protocol}`];
    if (bindings === undefined || bindings === null)
      throw new EngineError('not-found', `no public port '${wanted}' published for ${name}`);
    for (const line of bindings.map(address).sort(compareNaturally)) printLine(context.stdout, line);
  },
});

/** `9/tcp` before `80/tcp`; `0.0.0.0` before `[::]`. */
function compareNaturally(left: string, right: string): number {
  const padded = (text: string): string => text.replace(/\d+/g, (digits) => digits.padStart(10, '0'));
  return padded(left) < padded(right) ? -1 : padded(left) > padded(right) ? 1 : 0;
}
