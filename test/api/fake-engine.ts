import { EngineError } from '../../src/core/errors.ts';
import { isRunning } from '../../src/core/container-state.ts';
import type {
  Engine,
  EngineEvent,
  EventLog,
  Filters,
  NetworkService,
  NetworkView,
  SystemInfo,
  SystemService,
} from '../../src/engine/engine.ts';
import type { GuestService } from '../../src/engine/guest-service.ts';
import type { ProcessTable } from '../../src/core/process-table.ts';
import type { ContainerSizes, UsageService } from '../../src/engine/container-usage.ts';
import { Images } from '../../src/engine/image-service.ts';
import type { ImageStore } from '../../src/oci/image-store.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { FakeContainers } from './fake-containers.ts';
import { FakeExecs } from './fake-execs.ts';
import { FakeGuests } from './fake-guests.ts';

/**
 * An engine for tests of the wire alone: it keeps containers in memory and runs their commands as ordinary processes of this host, without
 * walls or limits. It honours the `Engine` interface as far as the API can see. Images are the real service over the given store.
 */
export class FakeEngine implements Engine {
  readonly events: FakeEventLog;
  readonly containers: FakeContainers;
  readonly execs: FakeExecs;
  readonly usage: UsageService = new FakeUsage();
  readonly images: Images;
  readonly networks: NetworkService = new FakeNetworks();
  readonly system: SystemService;
  readonly guests: GuestService = new FakeGuests();
  /** Calls in order, as `attach`, `wait`, `start` … */
  readonly calls: string[] = [];

  constructor(store: ImageStore) {
    this.events = new FakeEventLog();
    this.containers = new FakeContainers(this.events, this.calls);
    this.execs = new FakeExecs(this.containers, this.calls);
    const { events, containers } = this;
    this.images = new Images({
      images: store,
      events,
      table: { all: () => containers.list({ all: true, limit: 0, filters: new Map() }) },
      // Nothing is ever mounted here.
      layerMounts: { sweep: () => Promise.resolve() },
      clock: systemClock,
      logger: console,
    });
    this.system = { info: () => Promise.resolve(describeSystem(this.containers)) };
  }
}

/** Containers of nothing: no processes, no use. */
class FakeUsage implements UsageService {
  top(): Promise<ProcessTable> {
    return Promise.resolve({ titles: ['PID', 'CMD'], rows: [] });
  }

  stats(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  sizes(): Promise<ContainerSizes> {
    return Promise.resolve({ writtenBytes: 0, rootBytes: 0 });
  }
}

class FakeEventLog implements EventLog {
  readonly #past: EngineEvent[] = [];
  readonly #live = new Set<(event: EngineEvent) => void>();

  publish(event: Omit<EngineEvent, 'timeNs'>): void {
    const stamped = { ...event, timeNs: BigInt(Date.now()) * 1_000_000n + 7n };
    this.#past.push(stamped);
    this.#live.forEach((deliver) => deliver(stamped));
  }

  async *subscribe(options: {
    sinceNs: bigint | undefined;
    untilNs: bigint | undefined;
    filters: Filters;
    signal: AbortSignal;
  }): AsyncIterable<EngineEvent> {
    const queue = this.#past.filter(({ timeNs }) => options.sinceNs !== undefined && timeNs >= options.sinceNs);
    let wake = (): void => undefined;
    const deliver = (event: EngineEvent): void => {
      queue.push(event);
      wake();
    };
    this.#live.add(deliver);
    options.signal.addEventListener('abort', () => wake());
    try {
      while (!options.signal.aborted) {
        const next = queue.shift();
        if (next !== undefined) yield next;
        else if (options.untilNs !== undefined) return;
        else await new Promise<void>((resolve) => (wake = resolve));
      }
    } finally {
      this.#live.delete(deliver);
    }
  }

  /** Subscriptions that are open. */
  get subscriptions(): number {
    return this.#live.size;
  }
}

class FakeNetworks implements NetworkService {
  readonly #networks: NetworkView[] = (['bridge', 'host', 'none'] as const).map((name, index) => ({
    id: String(index + 1).repeat(64),
    name,
    driver: name === 'none' ? 'null' : name,
    createdAtMs: Date.UTC(2026, 0, 1),
    subnets: name === 'bridge' ? [{ subnet: '172.17.0.0/16', gateway: '172.17.0.1' }] : [],
    options: {},
    labels: {},
    endpoints: {},
  }));

  list(): NetworkView[] {
    return this.#networks;
  }

  inspect(nameOrId: string): NetworkView {
    const found = this.#networks.find(({ id, name }) => name === nameOrId || id.startsWith(nameOrId));
    if (found === undefined) throw new EngineError('not-found', `network ${nameOrId} not found`);
    return found;
  }
}

function describeSystem(containers: FakeContainers): SystemInfo {
  const views = containers.list({ all: true, limit: 0, filters: new Map() });
  const running = views.filter(({ state }) => isRunning(state)).length;
  return {
    id: 'fake',
    hostName: 'fake-host',
    kernelVersion: '6.18.0',
    operatingSystem: 'Fake Linux',
    cpus: 2,
    memoryBytes: 8 * 1024 ** 3,
    dataRoot: '/fake',
    containers: { total: views.length, running, paused: 0, stopped: views.length - running },
    images: 0,
    defaultIsolation: 'vm',
    allowedIsolations: ['vm', 'os'],
    accelerator: 'tcg',
    machineDriver: 'qemu',
    machinePool: undefined,
    cgroupVersion: 1,
    registryMirrors: [],
    insecureRegistries: [],
    labels: [],
    warnings: [],
  };
}
