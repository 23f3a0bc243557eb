import { readFile } from 'node:fs/promises';
import {
  allocateAddress,
  chooseSubnet,
  formatAddress,
  formatSubnet,
  gatewayOf,
  parseAddress,
  parseSubnet,
  type Subnet,
} from '../core/address-allocation.ts';
import { newId } from '../core/ids.ts';
import type { Database, Migration } from '../platform/database.ts';
import { deleteLink, enableIpv4Forwarding, ensureBridge, listIpv4Subnets } from '../platform/ffi/links.ts';
import { applyFirewall, removeFirewall } from './firewall.ts';
import { planResolvConf } from './resolv-conf.ts';

export const networkMigrations: readonly Migration[] = [
  {
    name: 'networks-1',
    sql: `CREATE TABLE network (name TEXT PRIMARY KEY, id TEXT NOT NULL UNIQUE, subnet TEXT NOT NULL, created_at_ms INTEGER NOT NULL) STRICT`,
  },
];

const DEFAULT_NAME = 'bridge';
const MTU_BYTES = 1500;

export interface BridgeNetworkOptions {
  readonly database: Database;
  /** Prefix of interface names and, where it is not the default, of the firewall table: two daemons have two. */
  readonly interfacePrefix: string;
  /** `--bip`: the bridge's own address and prefix length; undefined chooses from the pools. */
  readonly bridgeAddress: string | undefined;
  readonly addressPools: readonly string[];
  readonly nowMs: number;
}

/** The default network: one bridge for both walls, with outbound NAT. It is made on the host at the first use. */
export class BridgeNetwork {
  readonly id: string;
  readonly name = DEFAULT_NAME;
  readonly mtu = MTU_BYTES;
  readonly createdAtMs: number;
  readonly subnet: Subnet;
  readonly gateway: number;
  readonly bridgeName: string;
  readonly #interfacePrefix: string;
  readonly #used = new Set<number>();
  #last: number | undefined;
  #made: Promise<void> | undefined;

  private constructor(options: {
    id: string;
    createdAtMs: number;
    subnet: Subnet;
    gateway: number;
    interfacePrefix: string;
  }) {
    this.id = options.id;
    this.createdAtMs = options.createdAtMs;
    this.subnet = options.subnet;
    this.gateway = options.gateway;
    this.bridgeName = `${options.interfacePrefix}0`;
    this.#interfacePrefix = options.interfacePrefix;
  }

  /** Takes up the network of an earlier run, or chooses a subnet that no route of the host overlaps. */
  static async open(options: BridgeNetworkOptions): Promise<BridgeNetwork> {
    const { database, interfacePrefix } = options;
    const row = database.get('SELECT id, subnet, created_at_ms FROM network WHERE name = ?', DEFAULT_NAME);
    const wanted = options.bridgeAddress;
    if (row && (!wanted || String(row['subnet']) === formatSubnet(parseSubnet(wanted)))) {
      const subnet = parseSubnet(String(row['subnet']));
      const gateway = wanted ? parseAddress(wanted.split('/')[0] ?? '') : gatewayOf(subnet);
      return new BridgeNetwork({
        id: String(row['id']),
        createdAtMs: Number(row['created_at_ms']),
        subnet,
        gateway,
        interfacePrefix,
      });
    }
    const taken = (await listIpv4Subnets())
      .filter(({ link }) => link !== `${interfacePrefix}0`)
      .map(({ subnet }) => parseSubnet(subnet));
    const subnet = wanted ? parseSubnet(wanted) : chooseSubnet(options.addressPools.map(parseSubnet), taken);
    const gateway = wanted ? parseAddress(wanted.split('/')[0] ?? '') : gatewayOf(subnet);
    const id = newId();
    database.run(
      'INSERT OR REPLACE INTO network (name, id, subnet, created_at_ms) VALUES (?, ?, ?, ?)',
      DEFAULT_NAME,
      id,
      formatSubnet(subnet),
      options.nowMs,
    );
    return new BridgeNetwork({ id, createdAtMs: options.nowMs, subnet, gateway, interfacePrefix });
  }

  /** Bridge, forwarding and firewall stand. The first caller makes them; a failure is tried again by the next. */
  async ensure(): Promise<void> {
    this.#made ??= this.#make();
    try {
      await this.#made;
    } catch (error) {
      this.#made = undefined;
      throw error;
    }
  }

  allocate(): number {
    const address = allocateAddress(this.subnet, new Set([...this.#used, this.gateway]), this.#last);
    this.#used.add(address);
    this.#last = address;
    return address;
  }

  /** An address that a running container of an earlier daemon has. */
  reserve(address: string): void {
    this.#used.add(parseAddress(address));
  }

  release(address: string): void {
    this.#used.delete(parseAddress(address));
  }

  /** What containers of this network find in /etc/resolv.conf. */
  async resolvConf(): Promise<string> {
    const [own, upstream] = await Promise.all(
      // The second is what systemd-resolved itself asks, where the first names only its stub on the loopback.
      ['/etc/resolv.conf', '/run/systemd/resolve/resolv.conf'].map((path) => readFile(path, 'utf8').catch(() => '')),
    );
    return planResolvConf(own ?? '', upstream ?? '');
  }

  /** Takes bridge and firewall off the host; the network itself stays known. */
  async remove(): Promise<void> {
    await deleteLink(this.bridgeName);
    await removeFirewall(firewallTable(this.#interfacePrefix));
    this.#made = undefined;
  }

  async #make(): Promise<void> {
    await ensureBridge({
      name: this.bridgeName,
      address: formatAddress(this.gateway),
      prefixLength: this.subnet.prefixLength,
      mtuBytes: MTU_BYTES,
    });
    await enableIpv4Forwarding();
    await applyFirewall({
      table: firewallTable(this.#interfacePrefix),
      bridge: this.bridgeName,
      subnet: formatSubnet(this.subnet),
    });
  }
}

export function firewallTable(interfacePrefix: string): string {
  return interfacePrefix === 'bh' ? 'bulkhead' : `bulkhead-${interfacePrefix}`;
}
