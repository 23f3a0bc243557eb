import { EngineError } from './errors.ts';

/** An IPv4 network: its first address as a number, and its prefix length. */
export interface Subnet {
  readonly base: number;
  readonly prefixLength: number;
}

/** `10.1.0.0/16` → Subnet; `10.1.0.5/16` likewise (host bits are dropped). */
export function parseSubnet(text: string): Subnet {
  const match = /^(\d+\.\d+\.\d+\.\d+)\/(\d+)$/.exec(text);
  const prefixLength = Number(match?.[2]);
  if (!match || prefixLength > 32)
    throw new EngineError('invalid-argument', `invalid subnet ${text}: write it like 172.30.0.0/16`);
  return { base: networkBase(parseAddress(match[1] ?? ''), prefixLength), prefixLength };
}

/** `10.1.0.5` → number. */
export function parseAddress(text: string): number {
  const parts = text.split('.').map(Number);
  if (parts.length !== 4 || parts.some((part) => !Number.isInteger(part) || part < 0 || part > 255)) {
    throw new EngineError('invalid-argument', `invalid IPv4 address ${text}`);
  }
  return parts.reduce((sum, part) => sum * 256 + part, 0);
}

export function formatAddress(address: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join('.');
}

export function formatSubnet(subnet: Subnet): string {
  return `${formatAddress(subnet.base)}/${subnet.prefixLength}`;
}

export function subnetsOverlap(first: Subnet, second: Subnet): boolean {
  const shorter = Math.min(first.prefixLength, second.prefixLength);
  return networkBase(first.base, shorter) === networkBase(second.base, shorter);
}

/** The first pool that overlaps none of `taken`. */
export function chooseSubnet(pools: readonly Subnet[], taken: readonly Subnet[]): Subnet {
  const free = pools.find((pool) => !taken.some((other) => subnetsOverlap(pool, other)));
  if (free) return free;
  throw new EngineError(
    'resource-exhausted',
    `every address pool (${pools.map(formatSubnet).join(', ')}) overlaps a route of this host; choose a free one with --bip`,
  );
}

/** The subnet's first usable address: the bridge's. */
export function gatewayOf(subnet: Subnet): number {
  return subnet.base + 1;
}

/**
 * The next free address after `last`, going round, so that an address just given back is not handed out at once (stale ARP entries).
 * Network, gateway and broadcast addresses are never given.
 */
export function allocateAddress(subnet: Subnet, used: ReadonlySet<number>, last: number | undefined): number {
  const first = subnet.base + 2;
  const end = subnet.base + 2 ** (32 - subnet.prefixLength) - 1;
  const count = Math.max(0, end - first);
  const start = last === undefined || last < first || last >= end ? first : last + 1;
  for (let step = 0; step < count && step <= used.size + 1; step++) {
    const candidate = first + ((start - first + step) % count);
    if (!used.has(candidate)) return candidate;
  }
  throw new EngineError(
    'resource-exhausted',
    `no free address left in ${formatSubnet(subnet)}; remove containers or enlarge the network`,
  );
}

/** Docker's MAC for an address: `02:42` and its four bytes. */
export function macAddressFor(address: number): string {
  const bytes = [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256);
  return [0x02, 0x42, ...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
}

function networkBase(address: number, prefixLength: number): number {
  const size = 2 ** (32 - prefixLength);
  return Math.floor(address / size) * size;
}
