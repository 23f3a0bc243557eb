import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { isRunning, transition, type ContainerEvent } from '../core/container-state.ts';
import { parseDigest } from '../core/digest.ts';
import { EngineError, toEngineError } from '../core/errors.ts';
import { newId, shortId } from '../core/ids.ts';
import { planPorts, type PortRequest } from '../core/ports.ts';
import { killAndRemoveCgroup } from '../platform/cgroups.ts';
import { copySparse } from '../platform/ffi/files.ts';
import type { Sandbox } from '../sandbox/sandbox.ts';
import type { CreateContainer, SandboxExit, SandboxPort } from '../wire/shim.ts';
import type { Attachments } from './attachments.ts';
import type { ContainerRecord, SandboxRecord } from './container-record.ts';
import { containerPaths } from './container-view.ts';
import type { EngineContext } from './engine-context.ts';
import { availableCapabilities } from './process-plan.ts';
import { planCreateContainer, planEndpoint, planSandbox, type SandboxPlanInput } from './sandbox-plan.ts';
import type { Waiters } from './waiters.ts';

const INIT = 'init';
/** After a kill signal the kernel needs only moments; a machine that does not react is ended from outside. */
const KILL_DEADLINE_MS = 10_000;

interface LiveContainer {
  readonly sandbox: Sandbox;
  /** Ends the watch for its exit. */
  readonly watch: AbortController;
  /** Settles when the exit is recorded and the sandbox is gone. */
  readonly gone: Promise<void>;
}

/** Starts containers, watches them, records how they end, and finds them again after the daemon's own death. */
export class ContainerRunner {
  readonly #context: EngineContext;
  readonly #attachments: Attachments;
  readonly #waiters: Waiters;
  readonly #live = new Map<string, LiveContainer>();
  readonly #onExited: (id: string) => void;

  constructor(
    context: EngineContext,
    parts: { attachments: Attachments; waiters: Waiters; onExited: (id: string) => void },
  ) {
    this.#context = context;
    this.#attachments = parts.attachments;
    this.#waiters = parts.waiters;
    this.#onExited = parts.onExited;
  }

  /** The running sandbox of a container; `wrong-state` when it has none. */
  sandboxOf(record: ContainerRecord): Sandbox {
    const live = this.#live.get(record.id);
    if (!live || !isRunning(record.state))
      throw new EngineError('wrong-state', `container ${record.id} is not running`);
    return live.sandbox;
  }

  /** Settles when the container has ended and its sandbox is gone. */
  gone(id: string): Promise<void> {
    return this.#live.get(id)?.gone ?? Promise.resolve();
  }

  /** The caller holds the container's lock. */
  async start(record: ContainerRecord): Promise<void> {
    const { table, launcher, clock } = this.#context;
    const phases = [{ name: 'start-requested', monotonicNs: clock.monotonicNs() }];
    const mark = (name: string): void => void phases.push({ name, monotonicNs: clock.monotonicNs() });
    const ports = planPorts(
      record.hostConfig.PortBindings ?? {},
      Object.keys(record.config.ExposedPorts ?? {}),
      record.hostConfig.PublishAllPorts ?? false,
    );
    const planned = await this.#planSandboxRecord(record);
    // The intent goes to disk before the first effect, so that whatever is left after a crash has an owner.
    table.update({ ...record, sandbox: planned });
    let sandbox: Sandbox | undefined;
    try {
      const input = await this.#gather(record, planned, ports);
      mark('planned');
      sandbox = await launcher.launch(planSandbox(input));
      mark('sandbox-ready');
      await sandbox.createContainer(record.id, planCreateContainer(input));
      mark('create-answered');
      await this.#attachments.connect(record.id, sandbox);
      const { pid } = await sandbox.start(record.id, INIT);
      mark('start-answered');
      // For a machine the host's number is that of the machine process: the guest's own numbers mean nothing out here.
      const status = ports.length > 0 || record.isolation === 'vm' ? await sandbox.status() : undefined;
      const sandboxRecord = { ...planned, ports: groupPorts(status?.ports ?? []), phases };
      this.#started(record, sandboxRecord, sandbox, status?.machinePid || pid);
    } catch (error) {
      await this.#startFailed(record, sandbox, toEngineError(error, `cannot start container ${shortId(record.id)}`));
    }
  }

  /** Sends a signal to the container's first process. */
  async kill(record: ContainerRecord, signal: number): Promise<void> {
    await this.sandboxOf(record).kill(record.id, INIT, signal);
  }

  async resize(record: ContainerRecord, size: { height: number; width: number }): Promise<void> {
    await this.sandboxOf(record).resize(record.id, INIT, size);
  }

  /** Kills what does not end by itself: first the process, then, after a deadline, the sandbox around it. */
  async killAndWait(record: ContainerRecord): Promise<void> {
    const live = this.#live.get(record.id);
    if (!live) return;
    try {
      await live.sandbox.kill(record.id, INIT, 9);
    } catch (error) {
      this.#context.logger.debug(
        { err: error, container: record.id },
        'kill was refused; the process is probably gone',
      );
    }
    if (!(await settlesWithin(live.gone, KILL_DEADLINE_MS))) {
      await live.sandbox.stop(0).catch(() => undefined);
      await live.gone;
    }
  }

  /** After the daemon's start: takes up what still runs, records what ended meanwhile, clears what is left of the rest. */
  async reconcile(): Promise<void> {
    await Promise.all(this.#context.table.all().map((record) => this.#reconcileOne(record)));
  }

  /** The daemon ends: stop watching, leave everything running. */
  detach(): void {
    for (const live of this.#live.values()) live.watch.abort();
  }

  async #reconcileOne(record: ContainerRecord): Promise<void> {
    const { sandbox: known } = record;
    if (!known) return;
    const { launcher, dataRoot } = this.#context;
    const { stateDir } = containerPaths(dataRoot, record.id);
    const sandbox = await launcher.adopt(record.id, known.runtimeDir);
    const status = await sandbox?.status().catch(() => undefined);
    const container = status?.containers[record.id];
    if (sandbox && container?.state === 'running') {
      if (known.network) this.#context.network.reserve(known.network.ipv4Address);
      if (known.uid !== undefined) this.#context.machine.reserveUid(known.uid, record.id);
      this.#started(
        record,
        { ...known, ports: groupPorts(status?.ports ?? []) },
        sandbox,
        container.pid,
        isRunning(record.state),
      );
      return;
    }
    const exit = container?.exit ?? (await launcher.readExit(stateDir, record.id));
    if (isRunning(record.state)) {
      await this.#exited(record.id, sandbox, exit ?? lostExit());
      return;
    }
    // The daemon died while it was starting this one: the client that asked is gone, nothing runs.
    await sandbox?.stop(0).catch(() => undefined);
    await sandbox?.release();
    await this.#clear(record);
  }

  async #planSandboxRecord(record: ContainerRecord): Promise<SandboxRecord> {
    const { network, execRoot, interfacePrefix, machine } = this.#context;
    const mode = record.hostConfig.NetworkMode ?? network.name;
    const wantsNetwork = mode !== 'none';
    if (wantsNetwork && mode !== network.name && mode !== network.id) {
      await this.#startFailed(record, undefined, new EngineError('not-found', `network ${mode} not found`));
    }
    const address = wantsNetwork ? network.allocate() : undefined;
    return {
      runtimeDir: join(execRoot, 's', shortId(record.id)),
      cgroupPath: `bulkhead/${record.id}`,
      ports: {},
      phases: [],
      ...(record.isolation === 'vm' ? { uid: machine.allocateUid(record.id) } : {}),
      ...(address === undefined
        ? {}
        : {
            network: planEndpoint({
              containerId: record.id,
              networkId: network.id,
              networkName: network.name,
              endpointId: newId(),
              address,
              gateway: network.gateway,
              subnet: network.subnet,
              wall: record.isolation,
              interfacePrefix,
              macAddress: record.config.MacAddress ?? undefined,
            }),
          }),
    };
  }

  async #gather(
    record: ContainerRecord,
    sandbox: SandboxRecord,
    ports: readonly PortRequest[],
  ): Promise<SandboxPlanInput> {
    const { images, machine, layerMounts, network, dataRoot } = this.#context;
    const paths = containerPaths(dataRoot, record.id);
    const writablePath = paths.writablePath(record.isolation);
    const image = images.get(parseDigest(record.imageId));
    if (!image)
      throw new EngineError(
        'not-found',
        `image ${record.imageId} of container ${record.name} is gone; create the container anew`,
      );
    const { layers: unpacked } = await images.rootfs(image);
    if (sandbox.network) await network.ensure();
    let layers: CreateContainer['rootfs']['layers'];
    if (record.isolation === 'vm') {
      layers = unpacked.map(({ imagePath, sizeBytes }) => ({ imagePath, sizeBytes, mountPath: '' }));
      await this.#ensureScratch(writablePath);
    } else {
      layers = await layerMounts.mount(unpacked);
      await mkdir(join(writablePath, 'upper'), { recursive: true, mode: 0o755 });
      await mkdir(join(writablePath, 'work'), { recursive: true, mode: 0o700 });
    }
    return {
      record,
      sandbox,
      stateDir: paths.stateDir,
      logPath: paths.logPath,
      writablePath,
      layers,
      host: this.#context.host,
      machineDefaults: this.#context.machineDefaults,
      machine: record.isolation === 'vm' ? machine.config() : undefined,
      runcPath: this.#context.runcPath,
      bridge: sandbox.network ? { name: network.bridgeName, mtu: network.mtu } : undefined,
      resolvConf: await network.resolvConf(),
      availableCapabilities: availableCapabilities(record.isolation, this.#context.hostCapabilities),
      ports,
      hostCgroupVersion: this.#context.hostCgroupVersion,
    };
  }

  async #ensureScratch(path: string): Promise<void> {
    try {
      await copySparse({ source: this.#context.machine.scratchTemplatePath, target: path, mode: 0o600 });
    } catch (error) {
      // Started before: its disk is there, with what the container wrote.
      if (!(error instanceof EngineError && error.code === 'conflict')) throw error;
    }
  }

  #started(
    record: ContainerRecord,
    sandboxRecord: SandboxRecord,
    sandbox: Sandbox,
    pid: number,
    isAdopted = false,
  ): void {
    const { table, clock, events } = this.#context;
    const watch = new AbortController();
    const gone = this.#watch(record.id, sandbox, watch.signal);
    gone.catch(() => undefined);
    this.#live.set(record.id, { sandbox, watch, gone });
    const current = table.get(record.id) ?? record;
    if (isAdopted) {
      table.update({ ...current, sandbox: sandboxRecord });
      return;
    }
    table.update({
      ...current,
      sandbox: sandboxRecord,
      state: apply(current, { type: 'started', pid, atMs: clock.nowMs() }),
    });
    if (sandboxRecord.network) this.#publishNetwork('connect', record, sandboxRecord);
    events.publish(containerEvent(record, 'start'));
  }

  async #watch(id: string, sandbox: Sandbox, signal: AbortSignal): Promise<void> {
    let exit: SandboxExit;
    try {
      exit = await sandbox.wait(id, INIT, signal);
    } catch (error) {
      if (signal.aborted) return;
      const { stateDir } = containerPaths(this.#context.dataRoot, id);
      this.#context.logger.warn({ err: error, container: id }, 'lost the shim of a running container');
      exit = (await this.#context.launcher.readExit(stateDir, id)) ?? lostExit();
    }
    await this.#exited(id, sandbox, exit);
  }

  async #exited(id: string, sandbox: Sandbox | undefined, exit: SandboxExit): Promise<void> {
    const { table, clock, events } = this.#context;
    const record = table.get(id);
    if (!record) return;
    const finishedAtMs = exit.finishedAtNs > 0 ? Math.floor(exit.finishedAtNs / 1e6) : clock.nowMs();
    const startedAtMs = 'startedAtMs' in record.state ? record.state.startedAtMs : finishedAtMs;
    const phases = await this.#collectPhases(record, sandbox);
    const { exitCode, oomKilled, error } = exit;
    const ended = {
      ...record,
      state: apply(record, { type: 'exited', exitCode, oomKilled, error, atMs: finishedAtMs }),
      lastPhases: phases,
    };
    table.update(ended);
    const durationSeconds = Math.max(0, Math.round((finishedAtMs - startedAtMs) / 1000));
    events.publish(
      containerEvent(record, 'die', { exitCode: String(exitCode), execDuration: String(durationSeconds) }),
    );
    if (record.sandbox?.network) this.#publishNetwork('disconnect', record, record.sandbox);
    this.#attachments.end(id);
    try {
      await sandbox?.release();
      await this.#clear(ended);
    } catch (failure) {
      this.#context.logger.error({ err: failure, container: id }, 'cannot clear away what an ended container left');
    }
    this.#live.delete(id);
    this.#waiters.exited(id, { exitCode, error });
    this.#onExited(id);
  }

  async #collectPhases(record: ContainerRecord, sandbox: Sandbox | undefined): Promise<SandboxRecord['phases']> {
    const own = record.sandbox?.phases ?? [];
    const status = await sandbox?.status().catch(() => undefined);
    return [...own, ...(status?.phases ?? [])].sort((first, second) => first.monotonicNs - second.monotonicNs);
  }

  async #startFailed(record: ContainerRecord, sandbox: Sandbox | undefined, error: EngineError): Promise<never> {
    const { table } = this.#context;
    if (sandbox) {
      await sandbox.stop(0).catch(() => undefined);
      await sandbox.release().catch(() => undefined);
    }
    const exitCode = error.code === 'command-not-found' ? 127 : error.code === 'command-not-executable' ? 126 : 128;
    const current = table.get(record.id) ?? record;
    const failed = { ...current, state: apply(current, { type: 'startFailed', error: error.message, exitCode }) };
    table.update(failed);
    await this.#clear(failed);
    this.#attachments.end(record.id);
    this.#waiters.exited(record.id, { exitCode, error: '' });
    throw new EngineError(error.code, `failed to create task for container: ${error.message}`, { cause: error });
  }

  /** Gives back what the sandbox had; what outlives a shim that was killed is removed here. */
  async #clear(record: ContainerRecord): Promise<void> {
    const { table, network, machine } = this.#context;
    const { sandbox, ...rest } = table.get(record.id) ?? record;
    if (!sandbox) return;
    if (sandbox.network) network.release(sandbox.network.ipv4Address);
    if (sandbox.uid !== undefined) machine.releaseUid(sandbox.uid);
    await rm(sandbox.runtimeDir, { recursive: true, force: true });
    // Empty after an orderly end; after a shim was killed its processes may still be in it.
    await killAndRemoveCgroup(sandbox.cgroupPath);
    table.update(rest);
  }

  #publishNetwork(action: 'connect' | 'disconnect', record: ContainerRecord, sandbox: SandboxRecord): void {
    const { network } = sandbox;
    if (!network) return;
    this.#context.events.publish({
      type: 'network',
      action,
      actorId: network.networkId,
      attributes: { container: record.id, name: network.networkName, type: 'bridge' },
    });
  }
}

export function containerEvent(
  record: ContainerRecord,
  action: string,
  attributes: Record<string, string> = {},
): { type: 'container'; action: string; actorId: string; attributes: Record<string, string> } {
  return {
    type: 'container',
    action,
    actorId: record.id,
    attributes: { ...(record.config.Labels ?? {}), image: record.imageReference, name: record.name, ...attributes },
  };
}

function apply(record: ContainerRecord, event: ContainerEvent): ContainerRecord['state'] {
  const next = transition(record.state, event);
  if (next) return next;
  throw new EngineError(
    'wrong-state',
    `container ${record.id} is ${record.state.status}: '${event.type}' is not possible`,
  );
}

/** The shim is gone and left no word: it was killed, and the kernel took what it ran. */
function lostExit(): SandboxExit {
  return { exitCode: 137, oomKilled: false, finishedAtNs: 0, error: 'the process that held the container was killed' };
}

function groupPorts(held: readonly SandboxPort[]): SandboxRecord['ports'] {
  const grouped: Record<string, { hostIp: string; hostPort: number }[]> = {};
  for (const { containerPort, protocol, hostIp, hostPort } of held) {
    const addresses = hostIp === '' ? ['0.0.0.0', '::'] : [hostIp];
    const list = (grouped[`${containerPort}/${protocol}`] ??= []);
    list.push(...addresses.map((address) => ({ hostIp: address, hostPort })));
  }
  return grouped;
}

async function settlesWithin(promise: Promise<void>, timeoutMs: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), timeoutMs);
  });
  try {
    return await Promise.race([promise.then(() => true), late]);
  } finally {
    clearTimeout(timer);
  }
}
