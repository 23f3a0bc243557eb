import { formatAddress, formatSubnet } from '../core/address-allocation.ts';
import { EngineError } from '../core/errors.ts';
import type { ContainerTable } from './container-table.ts';
import type { Filters, NetworkService, NetworkView } from './engine.ts';
import type { BridgeNetwork } from '../network/bridge-network.ts';

const NONE_ID = '0'.repeat(63) + '1';
const KEYS = new Set(['dangling', 'driver', 'id', 'label', 'name', 'scope', 'type']);

/** The networks that containers can name. */
export class Networks implements NetworkService {
  readonly #bridge: BridgeNetwork;
  readonly #table: ContainerTable;

  constructor(bridge: BridgeNetwork, table: ContainerTable) {
    this.#bridge = bridge;
    this.#table = table;
  }

  list(filters: Filters): NetworkView[] {
    for (const key of filters.keys()) {
      if (!KEYS.has(key)) throw new EngineError('invalid-argument', `invalid filter '${key}'`);
    }
    const matches = (view: NetworkView, key: string, value: string): boolean =>
      key === 'name'
        ? view.name.includes(value)
        : key === 'id'
          ? view.id.startsWith(value)
          : key === 'driver'
            ? view.driver === value
            : key === 'scope'
              ? value === 'local'
              : key === 'type'
                ? value === 'builtin'
                : key === 'dangling'
                  ? value === 'false' || value === '0'
                  : false;
    return this.#all().filter((view) =>
      [...filters].every(([key, values]) => values.length === 0 || values.some((value) => matches(view, key, value))),
    );
  }

  inspect(nameOrId: string): NetworkView {
    const all = this.#all();
    const found =
      all.find((view) => view.name === nameOrId || view.id === nameOrId) ??
      all.find((view) => nameOrId.length > 0 && view.id.startsWith(nameOrId));
    if (!found) throw new EngineError('not-found', `network ${nameOrId} not found`);
    return found;
  }

  #all(): NetworkView[] {
    const { id, name, createdAtMs, subnet, gateway, bridgeName, mtu } = this.#bridge;
    return [
      {
        id,
        name,
        driver: 'bridge',
        createdAtMs,
        subnets: [{ subnet: formatSubnet(subnet), gateway: formatAddress(gateway) }],
        options: {
          'com.docker.network.bridge.default_bridge': 'true',
          'com.docker.network.bridge.enable_icc': 'true',
          'com.docker.network.bridge.enable_ip_masquerade': 'true',
          'com.docker.network.bridge.name': bridgeName,
          'com.docker.network.driver.mtu': String(mtu),
        },
        labels: {},
        endpoints: this.#endpoints(id),
      },
      { id: NONE_ID, name: 'none', driver: 'null', createdAtMs, subnets: [], options: {}, labels: {}, endpoints: {} },
    ];
  }

  #endpoints(networkId: string): NetworkView['endpoints'] {
    return Object.fromEntries(
      this.#table.all().flatMap((record) => {
        const endpoint = record.sandbox?.network;
        return endpoint?.networkId === networkId ? [[record.id, { ...endpoint, containerName: record.name }]] : [];
      }),
    );
  }
}
