import { isIPv4 } from 'node:net';
import { z } from 'zod';
import { nativeLibrary } from './library.ts';

export interface BridgeSpec {
  /** 1 to 15 visible ASCII characters. */
  readonly name: string;
  /** The host's IPv4 address on the bridge, its only one; absent for a network that the host is not part of. */
  readonly address?: string;
  /** Of the address; 1 to 32, and 24 unless told otherwise. */
  readonly prefixLength?: number;
  readonly mtuBytes: number;
}

export interface BridgeState {
  readonly index: number;
  /** False if it was there before; it is as wanted all the same. */
  readonly created: boolean;
  readonly hardwareAddress: string;
}

export interface Link {
  readonly name: string;
  readonly index: number;
  /** `bridge`, `tun`, `veth` …; empty for a physical one. */
  readonly kind: string;
  readonly up: boolean;
  readonly mtuBytes: number;
  readonly hardwareAddress: string;
  /** Index of the bridge it is a port of. */
  readonly bridgeIndex?: number;
}

export interface HostAddress {
  /** IPv4 or IPv6. */
  readonly address: string;
  readonly prefixLength: number;
  readonly linkIndex: number;
}

export interface HostRoute {
  /** IPv4 or IPv6; `0.0.0.0` or `::` with prefix length 0 is the default route. */
  readonly destination: string;
  readonly prefixLength: number;
  readonly gateway?: string;
  /** 0 for a route without one link, for example `blackhole`. */
  readonly linkIndex: number;
}

const bridgeSchema = z
  .object({ index: z.number(), created: z.boolean(), hardware_address: z.string() })
  .transform(({ index, created, hardware_address }): BridgeState => ({
    index,
    created,
    hardwareAddress: hardware_address,
  }));

const linksSchema = z.array(
  z
    .object({
      name: z.string(),
      index: z.number(),
      kind: z.string(),
      up: z.boolean(),
      mtu_bytes: z.number(),
      hardware_address: z.string(),
      bridge_index: z.number(),
    })
    .transform((link): Link => ({
      name: link.name,
      index: link.index,
      kind: link.kind,
      up: link.up,
      mtuBytes: link.mtu_bytes,
      hardwareAddress: link.hardware_address,
      ...(link.bridge_index === 0 ? {} : { bridgeIndex: link.bridge_index }),
    })),
);

const routesSchema = z.object({
  addresses: z.array(
    z
      .object({ address: z.string(), prefix_length: z.number(), link_index: z.number() })
      .transform(({ address, prefix_length, link_index }): HostAddress => ({
        address,
        prefixLength: prefix_length,
        linkIndex: link_index,
      })),
  ),
  routes: z.array(
    z
      .object({
        destination: z.string(),
        prefix_length: z.number(),
        gateway: z.string().optional(),
        link_index: z.number(),
      })
      .transform((route): HostRoute => ({
        destination: route.destination,
        prefixLength: route.prefix_length,
        linkIndex: route.link_index,
        ...(route.gateway === undefined ? {} : { gateway: route.gateway }),
      })),
  ),
});

/**
 * Makes a bridge be as wanted, whether or not it exists: up, without spanning tree, with this MTU and exactly this IPv4 address. Its
 * hardware address follows from the name and does not change with its ports. Fails with `conflict` if a link of another kind has the name.
 */
export function ensureBridge(spec: BridgeSpec): Promise<BridgeState> {
  const { name, address, mtuBytes } = spec;
  const wanted = address === undefined ? null : { address, prefix_length: spec.prefixLength ?? 24 };
  return nativeLibrary().effect('bh_bridge_ensure', { name, address: wanted, mtu_bytes: mtuBytes }, bridgeSchema);
}

/** Deletes a link of any kind; false if there is none. */
export async function deleteLink(name: string): Promise<boolean> {
  const { deleted } = await nativeLibrary().effect('bh_link_delete', { name }, z.object({ deleted: z.boolean() }));
  return deleted;
}

/** Links whose name starts with `namePrefix`. */
export function listLinks(namePrefix: string): Promise<Link[]> {
  return nativeLibrary().effect('bh_link_list', { name_prefix: namePrefix }, linksSchema);
}

/** Lets the host forward IPv4 between its links, and says whether it did already. */
export async function enableIpv4Forwarding(): Promise<{ wasEnabled: boolean }> {
  const schema = z.object({ was_enabled: z.boolean() });
  const { was_enabled } = await nativeLibrary().effect('bh_forwarding_enable', {}, schema);
  return { wasEnabled: was_enabled };
}

/** The host's addresses and the routes of its main table, so that a new subnet clashes with none of them. */
export function listHostRoutes(): Promise<{ addresses: HostAddress[]; routes: HostRoute[] }> {
  return nativeLibrary().effect('bh_route_list', {}, routesSchema);
}

export interface HostSubnet {
  /** Name of the link that the subnet is on or routed through; empty for a route without one. */
  readonly link: string;
  /** `10.0.0.0/8`; the address part may have host bits set. */
  readonly subnet: string;
}

/** IPv4 subnets that the host has an address in or a route to; the default route is none. */
export async function listIpv4Subnets(): Promise<HostSubnet[]> {
  const [links, { addresses, routes }] = await Promise.all([listLinks(''), listHostRoutes()]);
  const names = new Map(links.map(({ index, name }) => [index, name]));
  const occupied = [
    ...addresses,
    ...routes.map(({ destination, prefixLength, linkIndex }) => ({ address: destination, prefixLength, linkIndex })),
  ];
  return occupied
    .filter(({ address, prefixLength }) => isIPv4(address) && prefixLength > 0)
    .map(({ address, prefixLength, linkIndex }) => ({
      link: names.get(linkIndex) ?? '',
      subnet: `${address}/${prefixLength}`,
    }));
}
