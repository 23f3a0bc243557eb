import { randomUUID } from 'node:crypto';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { availableParallelism, totalmem } from 'node:os';
import { join } from 'node:path';
import { startApiServer, type ApiServer } from '../api/server.ts';
import { parseCapabilityMask } from '../core/capabilities.ts';
import { EngineError, systemErrorCode } from '../core/errors.ts';
import { containerMigrations, ContainerTable } from '../engine/container-table.ts';
import { Containers } from '../engine/container-service.ts';
import { ContainerUsage } from '../engine/container-usage.ts';
import type { EngineContext } from '../engine/engine-context.ts';
import { EventRing } from '../engine/event-log.ts';
import { Execs } from '../engine/exec-service.ts';
import { guestMigrations, GuestTable } from '../engine/guest-record.ts';
import { Guests } from '../engine/guests.ts';
import { Images } from '../engine/image-service.ts';
import { Networks } from '../engine/networks.ts';
import { System } from '../engine/system.ts';
import { GuestImages } from '../machine/guest-images/guest-images.ts';
import { MachineHost } from '../machine/machine-host.ts';
import { BridgeNetwork, networkMigrations } from '../network/bridge-network.ts';
import { ProcessLayerBuilder } from '../oci/layer-builder.ts';
import { imageMigrations } from '../oci/image-records.ts';
import { ImageStore } from '../oci/image-store.ts';
import { RegistryClient } from '../oci/registry/registry-client.ts';
import { cgroupVersion } from '../platform/cgroups.ts';
import { systemClock } from '../platform/clock.ts';
import { Database } from '../platform/database.ts';
import { lockFile } from '../platform/ffi/files.ts';
import { LayerMounts } from '../sandbox/os/layer-mounts.ts';
import { ShimLauncher } from '../sandbox/shim-launcher.ts';
import { findArtifacts } from './artifacts.ts';
import type { DaemonSettings } from './daemon-options.ts';
import { planListeners } from './listeners.ts';
import { createLogger } from './logging.ts';
import { openMachines } from './machines.ts';
import { registryProxy } from './registry-proxy.ts';
import { subnetsOfPool } from './address-pools.ts';
import { PRODUCT_VERSION } from './version.ts';

const MIB = 1024 * 1024;
/** A machine whose user names no limits. RAM that the guest never touches costs nothing. */
const MACHINE_DEFAULTS = { vcpus: 2, memoryBytes: 1024 * MIB };
/** How long streams of clients may go on after SIGTERM. */
const STOP_DEADLINE_MS = 3_000;

/** For guests, with --shutdown-containers: what still runs then is killed. */
const GUEST_STOP_SECONDS = 30;

/** The composition root: everything that the daemon is made of, in the order in which it stands up. */
export class Daemon {
  readonly addresses: readonly string[];
  readonly #server: ApiServer;
  readonly #containers: Containers;
  readonly #guests: Guests;
  readonly #settings: DaemonSettings;
  readonly #resources: AsyncDisposableStack;
  readonly #clearHost: () => Promise<void>;

  private constructor(parts: {
    server: ApiServer;
    containers: Containers;
    guests: Guests;
    settings: DaemonSettings;
    resources: AsyncDisposableStack;
    clearHost: () => Promise<void>;
  }) {
    this.addresses = parts.server.addresses;
    this.#server = parts.server;
    this.#containers = parts.containers;
    this.#guests = parts.guests;
    this.#settings = parts.settings;
    this.#resources = parts.resources;
    this.#clearHost = parts.clearHost;
  }

  static async start(settings: DaemonSettings, signal: AbortSignal): Promise<Daemon> {
    await using stack = new AsyncDisposableStack();
    const dataRoot = settings['data-root'];
    const execRoot = settings['exec-root'];
    const logger = createLogger(settings);
    await makeRoots(dataRoot, execRoot);
    stack.use(lockFile(join(dataRoot, 'lock')));
    if (settings.pidfile) await writePidFile(settings.pidfile, stack);
    const artifacts = findArtifacts();
    const database = stack.use(
      Database.open(join(dataRoot, 'state.sqlite'), [
        ...imageMigrations,
        ...networkMigrations,
        ...containerMigrations,
        ...guestMigrations,
      ]),
    );
    const clock = systemClock;
    const events = new EventRing(clock);
    const machine = await MachineHost.open(settings.accelerator, artifacts.machineFiles, {
      scope: dataRoot,
      kernelArguments: settings['guest-aslr'] ? [] : ['norandmaps'],
    });
    const store = await ImageStore.open({
      root: dataRoot,
      database,
      layerBuilder: new ProcessLayerBuilder(artifacts.layerBuilderPath),
      registry: stack.use(
        new RegistryClient({
          mirrors: settings['registry-mirrors'],
          insecureRegistries: settings['insecure-registries'],
          ...registryProxy(process.env),
        }),
      ),
      logger,
    });
    const network = await BridgeNetwork.open({
      database,
      interfacePrefix: settings['bridge-prefix'],
      bridgeAddress: settings.bip,
      addressPools: settings['default-address-pools'].flatMap(subnetsOfPool),
      nowMs: clock.nowMs(),
    });
    const hostFacts = {
      host: { cpus: availableParallelism(), memoryBytes: totalmem() },
      machineDefaults: MACHINE_DEFAULTS,
      hostCapabilities: await hostCapabilities(),
      machine,
    };
    const launcher = new ShimLauncher({ shimPath: artifacts.shimPath });
    const { templates, pool } = openMachines(settings, {
      ...hostFacts,
      launcher,
      logger,
      shimPath: artifacts.shimPath,
    });
    const context: EngineContext = {
      ...hostFacts,
      table: ContainerTable.load(database),
      images: store,
      events,
      launcher,
      network,
      templates,
      pool,
      layerMounts: await LayerMounts.open(join(execRoot, 'layers')),
      clock,
      logger,
      hostCgroupVersion: await cgroupVersion(),
      runcPath: 'runc',
      initPath: artifacts.initPath,
      dataRoot,
      execRoot,
      interfacePrefix: settings['bridge-prefix'],
      defaultIsolation: settings.isolation,
      allowedIsolations: settings['allowed-isolation'],
    };
    const images = new Images(context);
    const containers = new Containers(context, (imageId) => images.afterContainerRemoval(imageId));
    const claimed = new Set(context.table.all().flatMap(({ sandbox }) => (sandbox ? [sandbox.runtimeDir] : [])));
    await Promise.all([containers.reconcile(), pool?.adopt(claimed)]);
    stack.defer(() => containers.detach());
    stack.defer(() => templates?.close());
    stack.defer(() => pool?.close());
    const execs = new Execs(context, (record) => containers.sandboxOf(record));
    stack.defer(() => execs.detach());
    const guests = new Guests(
      context,
      GuestTable.load(database),
      await GuestImages.open(join(dataRoot, 'guest-images')),
    );
    await guests.reconcile();
    stack.defer(() => guests.detach());
    const engine = {
      containers,
      guests,
      execs,
      usage: new ContainerUsage(context, (record) => containers.sandboxOf(record)),
      images,
      events,
      networks: new Networks(network, context.table),
      system: new System(context, {
        id: await daemonId(dataRoot),
        labels: settings.labels,
        registryMirrors: settings['registry-mirrors'],
        insecureRegistries: settings['insecure-registries'],
      }),
    };
    // The signal ends a start that is under way; a daemon that stands is ended by `stop`, which lets its clients finish.
    const starting = new AbortController();
    const onAbort = (): void => starting.abort();
    signal.addEventListener('abort', onAbort);
    const server = stack.use(
      await startApiServer(
        { engine, logger, version: PRODUCT_VERSION, listeners: planListeners(settings) },
        starting.signal,
      ),
    );
    signal.removeEventListener('abort', onAbort);
    // Nobody waits for it, except the end of what it works on.
    const startingGuests = guests.startAutomatic();
    stack.defer(() => startingGuests);
    const sweeping = images.sweep();
    stack.defer(() => sweeping);
    // Reading kernel and programs, to tell whose saved machines are there, must keep nobody from being answered.
    templates?.sweep().catch((error: unknown) => {
      logger.error({ err: error }, 'cannot clear away saved machines that nobody needs');
    });
    containers.resume();
    pool?.refill();
    logger.info({ accelerator: machine.accelerator, problem: machine.problem, kvm: machine.kvm }, 'ready');
    const clearHost = async (): Promise<void> => {
      try {
        await context.layerMounts[Symbol.asyncDispose]();
        await network.remove();
      } catch (error) {
        logger.error({ err: error }, 'cannot take mounts and network off the host');
      }
    };
    return new Daemon({ server, containers, guests, settings, clearHost, resources: stack.move() });
  }

  /** Graceful: clients first, then what they stood on. Containers keep running unless the settings say otherwise. */
  async stop(): Promise<void> {
    await this.#server.stop({ deadlineMs: STOP_DEADLINE_MS });
    await this.#containers.settle();
    if (this.#settings['shutdown-containers']) {
      await Promise.all([this.#containers.stopAll(), this.#guests.stopAll(GUEST_STOP_SECONDS)]);
    }
    // What running containers stand on stays with them; the next daemon takes it up.
    if (!this.#containers.hasRunning() && !this.#guests.hasRunning()) await this.#clearHost();
    await this.#resources.disposeAsync();
  }
}

async function makeRoots(dataRoot: string, execRoot: string): Promise<void> {
  // A sandbox's socket path is made from the exec root and has 108 bytes at most (unix(7)).
  if (Buffer.byteLength(execRoot) > 60) {
    throw new EngineError(
      'invalid-argument',
      `--exec-root ${execRoot} is too long: 60 bytes at most, as unix sockets are made in it`,
    );
  }
  for (const path of [dataRoot, join(dataRoot, 'containers')]) await mkdir(path, { recursive: true, mode: 0o711 });
  await mkdir(execRoot, { recursive: true, mode: 0o711 });
}

async function writePidFile(path: string, stack: AsyncDisposableStack): Promise<void> {
  await writeFile(path, `${process.pid}\n`);
  stack.defer(() => rm(path, { force: true }));
}

async function daemonId(dataRoot: string): Promise<string> {
  const path = join(dataRoot, 'engine-id');
  try {
    return (await readFile(path, 'utf8')).trim();
  } catch (error) {
    if (systemErrorCode(error) !== 'ENOENT') throw error;
    const id = randomUUID();
    await writeFile(path, `${id}\n`, { mode: 0o600 });
    return id;
  }
}

/** What this process could hand on: its bounding set. */
async function hostCapabilities(): Promise<ReadonlySet<string>> {
  const status = await readFile('/proc/self/status', 'utf8');
  return parseCapabilityMask(/^CapBnd:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0');
}
