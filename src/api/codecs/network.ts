import type { NetworkView } from '../../engine/engine.ts';
import { formatTime } from './timestamp.ts';

/** Docker's network resource, for list and inspect. Source: moby api/docs/v1.51.yaml, definition Network. */
export function encodeNetwork(network: NetworkView): Record<string, unknown> {
  const containers = Object.entries(network.endpoints).map(([id, endpoint]) => [
    id,
    {
      Name: endpoint.containerName,
      EndpointID: endpoint.endpointId,
      MacAddress: endpoint.macAddress,
      IPv4Address: endpoint.ipv4Address === '' ? '' : `${endpoint.ipv4Address}/${endpoint.ipv4PrefixLength}`,
      IPv6Address: '',
    },
  ]);
  return {
    Name: network.name,
    Id: network.id,
    Created: formatTime(network.createdAtMs),
    Scope: 'local',
    Driver: network.driver,
    EnableIPv4: true,
    EnableIPv6: false,
    IPAM: {
      Driver: 'default',
      Options: null,
      Config: network.subnets.map(({ subnet, gateway }) => ({ Subnet: subnet, Gateway: gateway })),
    },
    Internal: false,
    Attachable: false,
    Ingress: false,
    ConfigFrom: { Network: '' },
    ConfigOnly: false,
    Containers: Object.fromEntries(containers),
    Options: network.options,
    Labels: network.labels,
  };
}
