import type { ContainerView, EndpointView } from '../../engine/engine.ts';
import { isAtLeast, type ApiVersion } from '../api-version.ts';

/** `NetworkSettings` of inspect. The outer addresses repeat those of the default network, for clients from before 1.21. */
export function encodeNetworkSettings(view: ContainerView, version: ApiVersion): Record<string, unknown> {
  const bridge = view.networks['bridge'];
  return {
    Bridge: '',
    SandboxID: '',
    SandboxKey: '',
    Ports: Object.fromEntries(
      Object.entries(view.ports).map(([port, published]) => [
        port,
        published?.map(({ hostIp, hostPort }) => ({ HostIp: hostIp, HostPort: String(hostPort) })) ?? null,
      ]),
    ),
    HairpinMode: false,
    LinkLocalIPv6Address: '',
    LinkLocalIPv6PrefixLen: 0,
    SecondaryIPAddresses: null,
    SecondaryIPv6Addresses: null,
    EndpointID: bridge?.endpointId ?? '',
    Gateway: bridge?.ipv4Gateway ?? '',
    GlobalIPv6Address: '',
    GlobalIPv6PrefixLen: 0,
    IPAddress: bridge?.ipv4Address ?? '',
    IPPrefixLen: bridge?.ipv4PrefixLength ?? 0,
    IPv6Gateway: '',
    MacAddress: bridge?.macAddress ?? '',
    Networks: encodeEndpoints(view, version),
  };
}

export function encodeEndpoints(view: ContainerView, version: ApiVersion): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(view.networks).map(([name, endpoint]) => [name, encodeEndpoint(endpoint, version)]),
  );
}

function encodeEndpoint(endpoint: EndpointView, version: ApiVersion): Record<string, unknown> {
  return {
    IPAMConfig: null,
    Links: null,
    Aliases: null,
    MacAddress: endpoint.macAddress,
    DriverOpts: null,
    ...(isAtLeast(version, '1.48') ? { GwPriority: 0 } : {}),
    NetworkID: endpoint.networkId,
    EndpointID: endpoint.endpointId,
    Gateway: endpoint.ipv4Gateway,
    IPAddress: endpoint.ipv4Address,
    IPPrefixLen: endpoint.ipv4PrefixLength,
    IPv6Gateway: '',
    GlobalIPv6Address: '',
    GlobalIPv6PrefixLen: 0,
    ...(isAtLeast(version, '1.44') ? { DNSNames: null } : {}),
  };
}
