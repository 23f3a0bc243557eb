import { UsageError } from '../flags/parse-flags.ts';

type Endpoint = Record<string, unknown>;

export interface NetworkPlan {
  /** `HostConfig.NetworkMode`. */
  readonly mode: string;
  /** `NetworkingConfig.EndpointsConfig`. */
  readonly endpoints: Record<string, Endpoint>;
}

export interface NetworkFlags {
  readonly networks: readonly string[];
  readonly aliases: readonly string[];
  readonly ipv4Address: string | undefined;
  readonly ipv6Address: string | undefined;
  readonly macAddress: string | undefined;
  readonly links: readonly string[];
}

/** Reads `--network NAME` and `--network name=NAME,alias=…,ip=…`, given once or more; the first one takes the single-network flags. */
export function planNetworks(flags: NetworkFlags): NetworkPlan {
  const endpoints: Record<string, Endpoint> = {};
  const names: string[] = [];
  for (const spec of flags.networks) {
    const { name, endpoint } = parseNetwork(spec);
    if (Object.hasOwn(endpoints, name)) throw new UsageError(`network "${name}" is specified multiple times`);
    names.push(name);
    endpoints[name] = endpoint;
  }
  const mode = names[0] ?? 'default';
  const first = (endpoints[mode] ??= {});
  if (flags.aliases.length > 0)
    first['Aliases'] = [...((first['Aliases'] as string[] | undefined) ?? []), ...flags.aliases];
  if (flags.links.length > 0 && isUserDefined(mode)) first['Links'] = [...flags.links];
  const addresses = {
    ...(flags.ipv4Address === undefined ? {} : { IPv4Address: flags.ipv4Address }),
    ...(flags.ipv6Address === undefined ? {} : { IPv6Address: flags.ipv6Address }),
  };
  if (Object.keys(addresses).length > 0)
    first['IPAMConfig'] = { ...(first['IPAMConfig'] as Endpoint | undefined), ...addresses };
  if (flags.macAddress !== undefined) first['MacAddress'] = flags.macAddress;
  if (names.length === 1 && mode.startsWith('container:')) return { mode, endpoints: {} };
  return { mode, endpoints };
}

function parseNetwork(spec: string): { name: string; endpoint: Endpoint } {
  if (!/(^|,)(name|alias|driver-opt|ip|ip6|mac-address|link-local-ip|gw-priority)=/.test(spec))
    return { name: spec, endpoint: {} };
  const endpoint: Endpoint = {};
  let name = '';
  for (const field of spec.split(',')) {
    const equals = field.indexOf('=');
    if (equals === -1) throw new UsageError(`invalid field ${field} in --network ${spec}`);
    const value = field.slice(equals + 1);
    const addresses = (): Endpoint => (endpoint['IPAMConfig'] ??= {}) as Endpoint;
    switch (field.slice(0, equals).toLowerCase()) {
      case 'name':
        name = value;
        break;
      case 'alias':
        ((endpoint['Aliases'] ??= []) as string[]).push(value);
        break;
      case 'ip':
        addresses()['IPv4Address'] = value;
        break;
      case 'ip6':
        addresses()['IPv6Address'] = value;
        break;
      case 'link-local-ip':
        ((addresses()['LinkLocalIPs'] ??= []) as string[]).push(value);
        break;
      case 'mac-address':
        endpoint['MacAddress'] = value;
        break;
      case 'gw-priority':
        endpoint['GwPriority'] = Number(value);
        break;
      case 'driver-opt': {
        const [key = '', ...rest] = value.split('=');
        ((endpoint['DriverOpts'] ??= {}) as Record<string, string>)[key] = rest.join('=');
        break;
      }
      default:
        throw new UsageError(`invalid field key ${field.slice(0, equals)} in --network ${spec}`);
    }
  }
  if (name === '') throw new UsageError(`network name/id is not specified in --network ${spec}`);
  return { name, endpoint };
}

function isUserDefined(mode: string): boolean {
  return !['default', 'bridge', 'host', 'none'].includes(mode) && !mode.startsWith('container:');
}
