import { mkdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { EngineError } from '../core/errors.ts';
import { GuestAgent } from '../machine/guest/guest-agent.ts';
import { GuestMachine, type GuestEnding } from '../machine/guest/guest-machine.ts';
import { AGENT_SOCKET, CONSOLE_SOCKET } from '../machine/guest/qemu-arguments.ts';
import { findProgramByArgument } from '../platform/process-list.ts';
import type { EngineContext } from './engine-context.ts';
import { RunningConsole } from './guest-console.ts';
import type { GuestHost } from './guest-host.ts';
import type { GuestRecord, GuestTable } from './guest-record.ts';

/** The hold on a running guest. */
export interface RunningGuest {
  readonly machine: GuestMachine;
  readonly agent: GuestAgent;
  readonly console: RunningConsole;
  /** Resolves when its end has been written down, and what it had of the host was given back. */
  readonly settled: Promise<void>;
}

const REASONS: Readonly<Record<GuestEnding, string>> = {
  'shutdown-by-guest': 'the guest shut itself down',
  stopped: 'stopped',
  killed: 'killed',
  crashed: "the guest's kernel crashed",
  unknown: 'its machine process was killed',
};

type GuestRunnerContext = Pick<EngineContext, 'machine' | 'network' | 'clock' | 'logger'>;

/** Starts machines, takes them up again, and writes down how they end. Callers hold the guest's lock. */
export class GuestRunner {
  readonly #context: GuestRunnerContext;
  readonly #table: GuestTable;
  readonly #host: GuestHost;
  readonly #running = new Map<string, RunningGuest>();
  #isDetached = false;

  constructor(context: GuestRunnerContext, table: GuestTable, host: GuestHost) {
    this.#context = context;
    this.#table = table;
    this.#host = host;
  }

  get(id: string): RunningGuest | undefined {
    return this.#running.get(id);
  }

  hasRunning(): boolean {
    return this.#running.size > 0;
  }

  /** Intent first: user id, boot id and the state `starting` are on disk before anything of the host is made. */
  async start(before: GuestRecord): Promise<GuestRecord> {
    const uid = this.#context.machine.allocateUid(before.id);
    let record: GuestRecord = {
      ...before,
      isStoppedOnPurpose: false,
      state: 'starting',
      bootMemoryBytes: before.memoryBytes,
      reason: '',
      uid,
      bootId: await readBootId(),
    };
    const save = (next: GuestRecord): void => {
      record = next;
      this.#table.update(next);
    };
    save(record);
    try {
      const paths = this.#host.paths(record.id);
      await mkdir(dirname(paths.runtimeDir), { recursive: true, mode: 0o711 });
      await this.#host.makeNetwork(record, uid);
      const machine = await GuestMachine.start(await this.#host.machineSpec(record, uid), {
        logPath: paths.machineLog,
        onSpawn: (process) => save({ ...record, process }),
      });
      save({ ...record, state: 'running', startedAtMs: this.#context.clock.nowMs() });
      this.#hold(record, machine);
      return record;
    } catch (error) {
      await this.#host.release(record);
      save(stopped(record, `did not start: ${error instanceof Error ? error.message : String(error)}`));
      throw error;
    }
  }

  /** Ends a guest's machine at once, and gives back what it had; one that does not run is left as it is. */
  async kill(id: string): Promise<void> {
    const guest = this.#running.get(id);
    if (guest) {
      await guest.machine.kill();
      await guest.settled;
      return;
    }
    const record = this.#table.get(id);
    if (!record?.process) return;
    await GuestMachine.killUnheld(record.process);
    await this.#host.release(record);
    this.#table.update({ ...stopped(record, REASONS.killed), isStoppedOnPurpose: true });
  }

  /** What an earlier daemon left: a machine that runs is held again, one that does not is written down as stopped. */
  async reconcile(record: GuestRecord): Promise<void> {
    if (record.network) this.#context.network.reserve(record.network.ipv4Address);
    if (record.state === 'stopped') return;
    if (record.state === 'creating') {
      await this.#host.removeFiles(record);
      if (record.network) this.#context.network.release(record.network.ipv4Address);
      this.#table.delete(record.id);
      return;
    }
    if (record.uid !== undefined) this.#context.machine.reserveUid(record.uid, record.id);
    const isSameBoot = record.bootId === (await readBootId());
    // A daemon that died between the program's start and the note of its pid: the program is known by the guest's own directory.
    const { runtimeDir } = this.#host.paths(record.id);
    const identity = record.process ?? (isSameBoot ? await findProgramByArgument(`${runtimeDir}/`) : undefined);
    const machine = identity && isSameBoot ? await GuestMachine.adopt(identity, runtimeDir) : undefined;
    if (machine) {
      const running: GuestRecord = { ...record, state: 'running', process: machine.identity };
      this.#table.update(running);
      this.#hold(running, machine);
      return;
    }
    await this.#host.release(record);
    const reason = isSameBoot ? 'ended while the daemon was away' : 'the host was restarted';
    this.#table.update(stopped(record, reason));
  }

  /** Lets go of all machines, which run on. */
  detach(): void {
    this.#isDetached = true;
    for (const guest of this.#running.values()) {
      guest.console[Symbol.dispose]();
      guest.machine[Symbol.dispose]();
    }
    this.#running.clear();
  }

  #hold(record: GuestRecord, machine: GuestMachine): void {
    const paths = this.#host.paths(record.id);
    const settled = Promise.withResolvers<undefined>();
    const guest: RunningGuest = {
      machine,
      agent: new GuestAgent(join(paths.runtimeDir, AGENT_SOCKET), record.name),
      console: new RunningConsole({
        logPath: paths.consoleLog,
        socketPath: join(paths.runtimeDir, CONSOLE_SOCKET),
        logger: this.#context.logger,
      }),
      settled: settled.promise,
    };
    this.#running.set(record.id, guest);
    this.#trimCpus(record.id, guest);
    machine.ended
      .then((ending) => this.#settle(record.id, guest, ending))
      .catch((error: unknown) => {
        if (!this.#isDetached) this.#context.logger.error({ err: error, guest: record.name }, 'cannot settle a guest');
      })
      .finally(() => settled.resolve(undefined));
  }

  /** In emulation a machine has all the CPUs that it can ever have: at every boot the guest is told how many of them to use. */
  #trimCpus(id: string, guest: RunningGuest): void {
    if (this.#context.machine.accelerator !== 'tcg') return;
    guest.machine.onAgentOpen(() => {
      const record = this.#table.get(id);
      if (!record || record.maxVcpus <= record.vcpus) return;
      guest.agent.useCpus(record.vcpus).catch((error: unknown) => {
        if (!guest.console.ended.aborted)
          this.#context.logger.warn({ err: error, guest: record.name }, 'the guest uses more CPUs than it should');
      });
    });
  }

  /** Not under the guest's lock, which whoever waits for this end holds; the state changes in one step. */
  async #settle(id: string, guest: RunningGuest, ending: GuestEnding): Promise<void> {
    guest.console[Symbol.dispose]();
    guest.machine[Symbol.dispose]();
    const record = this.#table.get(id);
    if (!record) return;
    await this.#host.release(record);
    const after = stopped(this.#table.get(id) ?? record, REASONS[ending]);
    this.#table.update({ ...after, isStoppedOnPurpose: ending !== 'unknown' && ending !== 'crashed' });
    this.#running.delete(id);
  }
}

function stopped(record: GuestRecord, reason: string): GuestRecord {
  const { uid: _uid, process: _process, startedAtMs: _startedAtMs, bootId: _bootId, ...kept } = record;
  return { ...kept, state: 'stopped', reason };
}

async function readBootId(): Promise<string> {
  return (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
}

export function assertNotRunning(record: GuestRecord): void {
  if (record.state !== 'stopped')
    throw new EngineError(
      'wrong-state',
      `guest ${record.name} is ${record.state}; stop it first: bulkhead vm stop ${record.name}`,
    );
}
