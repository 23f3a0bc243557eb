import type { NetworkCreateRequest } from '../../client/index.ts';
import { parseKeyValues } from '../container/environment.ts';
import { defineCommand, printLine } from '../command.ts';
import { UsageError } from '../flags/parse-flags.ts';
import { FILTER_FLAG, FORMAT_FLAG, parseFilters } from '../flags/shared-flags.ts';
import { formatRows } from '../render/format-rows.ts';
import { shortId } from '../render/units.ts';
import { forEachNameInOrder } from './for-each-name.ts';

const HEADERS = {
  ID: 'NETWORK ID',
  Name: 'NAME',
  Driver: 'DRIVER',
  Scope: 'SCOPE',
  IPv4: 'IPV4',
  IPv6: 'IPV6',
  Internal: 'INTERNAL',
  Labels: 'LABELS',
  CreatedAt: 'CREATED AT',
};

export const networkListCommand = defineCommand({
  usage: '[OPTIONS]',
  flags: {
    filter: FILTER_FLAG,
    format: FORMAT_FLAG,
    'no-trunc': { kind: 'boolean', summary: 'Do not truncate the output' },
    quiet: { kind: 'boolean', short: 'q', summary: 'Only display network IDs' },
  },
  arity: { min: 0, max: 0 },
  async run(context, flags) {
    const networks = await context.client().networks.list({ filters: parseFilters(flags.filter) });
    const idOf = (id: string): string => (flags['no-trunc'] === true ? id : shortId(id));
    const sorted = networks.sort((left, right) => left.Name.localeCompare(right.Name, 'en', { numeric: true }));
    if (flags.quiet === true && flags.format === undefined) {
      for (const { Id } of sorted) printLine(context.stdout, idOf(Id));
      return;
    }
    const rows = sorted.map((network) => ({
      CreatedAt: network.Created.replace('T', ' ').replace(/Z$/, ' +0000 UTC'),
      Driver: network.Driver,
      ID: idOf(network.Id),
      IPv4: String(network.EnableIPv4),
      IPv6: String(network.EnableIPv6),
      Internal: String(network.Internal),
      Labels: Object.entries(network.Labels)
        .map(([key, value]) => `${key}=${value}`)
        .join(','),
      Name: network.Name,
      Scope: network.Scope,
      Label: (name: unknown) => network.Labels[String(name)] ?? '',
    }));
    context.stdout.write(
      formatRows(rows, {
        format: flags.format,
        defaultTable: '{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}',
        headers: HEADERS,
      }),
    );
  },
});

export const networkCreateCommand = defineCommand({
  usage: '[OPTIONS] NETWORK',
  flags: {
    attachable: { kind: 'boolean', summary: 'Enable manual container attachment' },
    'aux-address': { kind: 'list', summary: 'Auxiliary addresses used by the network driver', value: 'name=ip' },
    driver: { kind: 'string', short: 'd', summary: 'Driver to manage the Network (default "bridge")' },
    gateway: { kind: 'words', summary: 'IPv4 or IPv6 Gateway for the subnet' },
    internal: { kind: 'boolean', summary: 'Restrict external access to the network' },
    'ip-range': { kind: 'words', summary: 'Allocate container ip from a sub-range' },
    'ipam-driver': { kind: 'string', summary: 'IP Address Management Driver (default "default")' },
    'ipam-opt': { kind: 'list', summary: 'Set IPAM driver specific options', value: 'key=value' },
    ipv4: { kind: 'boolean', summary: 'Enable or disable IPv4 address assignment (default true)' },
    ipv6: { kind: 'boolean', summary: 'Enable or disable IPv6 address assignment' },
    label: { kind: 'list', summary: 'Set metadata on a network', value: 'key[=value]' },
    opt: { kind: 'list', short: 'o', summary: 'Set driver specific options', value: 'key=value' },
    subnet: { kind: 'words', summary: 'Subnet in CIDR format that represents a network segment' },
  },
  arity: { min: 1, max: 1 },
  async run(context, flags, [name = '']) {
    if (flags.gateway.length > flags.subnet.length || flags['ip-range'].length > flags.subnet.length) {
      throw new UsageError('every ip-range or gateway must have a corresponding subnet');
    }
    const request: NetworkCreateRequest = {
      Name: name,
      Driver: flags.driver ?? 'bridge',
      Internal: flags.internal ?? false,
      Attachable: flags.attachable ?? false,
      ...(flags.ipv4 === undefined ? {} : { EnableIPv4: flags.ipv4 }),
      ...(flags.ipv6 === undefined ? {} : { EnableIPv6: flags.ipv6 }),
      IPAM: {
        Driver: flags['ipam-driver'] ?? 'default',
        Options: parseKeyValues(flags['ipam-opt']),
        Config: flags.subnet.map((subnet, index) => {
          const gateway = flags.gateway[index];
          const range = flags['ip-range'][index];
          return {
            Subnet: subnet,
            ...(gateway === undefined ? {} : { Gateway: gateway }),
            ...(range === undefined ? {} : { IPRange: range }),
            ...(index === 0 && flags['aux-address'].length > 0
              ? { AuxiliaryAddresses: parseKeyValues(flags['aux-address']) }
              : {}),
          };
        }),
      },
      Options: parseKeyValues(flags.opt),
      Labels: parseKeyValues(flags.label),
    };
    const created = await context.client().networks.create(request);
    for (const warning of created.Warnings) printLine(context.stderr, `WARNING: ${warning}`);
    printLine(context.stdout, created.Id);
  },
});

export const networkRemoveCommand = defineCommand({
  usage: '[OPTIONS] NETWORK [NETWORK...]',
  flags: { force: { kind: 'boolean', short: 'f', summary: 'Do not error if the network does not exist' } },
  arity: { min: 1 },
  async run(context, flags, names) {
    await forEachNameInOrder(context, names, async (name) => {
      try {
        await context.client().networks.remove(name);
      } catch (error) {
        const isMissing = error instanceof Error && 'status' in error && error.status === 404;
        if (!(flags.force === true && isMissing)) throw error;
      }
      printLine(context.stdout, name);
    });
  },
});

export const networkConnectCommand = defineCommand({
  usage: '[OPTIONS] NETWORK CONTAINER',
  flags: {
    alias: { kind: 'words', summary: 'Add network-scoped alias for the container' },
    'driver-opt': { kind: 'words', summary: 'driver options for the network', value: 'key=value' },
    ip: { kind: 'string', summary: 'IPv4 address (e.g., "172.30.100.104")' },
    ip6: { kind: 'string', summary: 'IPv6 address (e.g., "2001:db8::33")' },
    link: { kind: 'list', summary: 'Add link to another container' },
  },
  arity: { min: 2, max: 2 },
  async run(context, flags, [network = '', container = '']) {
    const addresses = {
      ...(flags.ip === undefined ? {} : { IPv4Address: flags.ip }),
      ...(flags.ip6 === undefined ? {} : { IPv6Address: flags.ip6 }),
    };
    await context.client().networks.connect(network, container, {
      ...(Object.keys(addresses).length === 0 ? {} : { IPAMConfig: addresses }),
      ...(flags.alias.length === 0 ? {} : { Aliases: flags.alias }),
      ...(flags.link.length === 0 ? {} : { Links: flags.link }),
      ...(flags['driver-opt'].length === 0 ? {} : { DriverOpts: parseKeyValues(flags['driver-opt']) }),
    });
  },
});

export const networkDisconnectCommand = defineCommand({
  usage: '[OPTIONS] NETWORK CONTAINER',
  flags: { force: { kind: 'boolean', short: 'f', summary: 'Force the container to disconnect from a network' } },
  arity: { min: 2, max: 2 },
  run: async (context, flags, [network = '', container = '']) =>
    context.client().networks.disconnect(network, container, { force: flags.force ?? false }),
});
