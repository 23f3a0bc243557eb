import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import { EngineError } from '../../core/errors.ts';
import type { GuestMachine } from './guest-machine.ts';
import { PLUG_BLOCK_MIB, PLUGGED_MEMORY } from './qemu-arguments.ts';

/*
 * CPUs, memory and disk of a running machine. QEMU's `{}` says that a wish was understood, not that it came true: every function here
 * says what came of it.
 */

const MIB = 1024 * 1024;
const UNPLUG_TIMEOUT_MS = 20_000;
const UNPLUG_POLL_MS = 200;
const MEMORY_TIMEOUT_MS = 20_000;
const MEMORY_POLL_MS = 250;
/** A balloon that is this near has done what it can: the guest counts its pages otherwise than we do. */
const BALLOON_TOLERANCE = 0.01;

const cpusSchema = z.array(
  z.object({ type: z.string(), props: z.record(z.string(), z.number()), 'qom-path': z.string().optional() }),
);

/**
 * Plugs or unplugs virtual CPUs where that may be done; resolves with how many the machine has then. The guest may use fewer.
 * @param canHotplug false in emulation. QEMU 7.2 then ends in the middle of it, and the guest with it: a new CPU finds no free region in a
 *   translation cache that is in use ("tcg_region_initial_alloc__locked: assertion failed"), and one that is plugged after another was
 *   unplugged corrupts memory. There a machine has all its CPUs from its start, and the guest uses as many as it should.
 */
export async function setVcpus(
  machine: GuestMachine,
  wanted: number,
  canHotplug: boolean,
): Promise<{ count: number; note: string }> {
  const read = async () => cpusSchema.parse(await machine.execute('query-hotpluggable-cpus'));
  const order = (cpu: { props: Record<string, number> }): number =>
    (cpu.props['socket-id'] ?? 0) * 1e6 + (cpu.props['core-id'] ?? 0) * 1e3 + (cpu.props['thread-id'] ?? 0);
  const cpus = (await read()).sort((left, right) => order(left) - order(right));
  const present = cpus.filter((cpu) => cpu['qom-path'] !== undefined);
  if (!canHotplug) return { count: present.length, note: '' };
  for (const cpu of cpus
    .filter((one) => one['qom-path'] === undefined)
    .slice(0, Math.max(0, wanted - present.length))) {
    await machine.execute('device_add', { driver: cpu.type, id: `cpu${order(cpu)}`, ...cpu.props });
  }
  const isThere = async (path: string): Promise<boolean> => (await read()).some((cpu) => cpu['qom-path'] === path);
  let note = '';
  for (const cpu of present.slice(wanted).reverse()) {
    note = await unplugCpu(machine, cpu['qom-path'] ?? '', isThere);
    if (note !== '') break;
  }
  const count = (await read()).filter((cpu) => cpu['qom-path'] !== undefined).length;
  return { count, note };
}

/** Empty when the guest has given it up; what it did instead otherwise. */
async function unplugCpu(
  machine: GuestMachine,
  path: string,
  isThere: (path: string) => Promise<boolean>,
): Promise<string> {
  const deadline = Date.now() + UNPLUG_TIMEOUT_MS;
  await machine.execute('device_del', { id: path });
  while (Date.now() < deadline) {
    // Asked, not waited for: QEMU has an event for a device that is gone, and sends none for every processor.
    const outcome = await machine.nextEvent(
      ({ name, data }) => name === 'DEVICE_UNPLUG_GUEST_ERROR' && data['path'] === path,
      UNPLUG_POLL_MS,
    );
    if (outcome) return 'the guest refused to give up a CPU';
    if (!(await isThere(path))) return '';
  }
  return 'the guest did not give up a CPU in time';
}

/**
 * Gives the guest memory by virtio-mem, and takes it back, below what it was started with by its balloon; resolves with what it has, as far
 * as it has come within some seconds.
 */
export async function setMemory(
  machine: GuestMachine,
  wanted: { readonly totalBytes: number; readonly bootBytes: number; readonly maxBytes: number },
): Promise<{ actualBytes: number; note: string }> {
  const { totalBytes, bootBytes, maxBytes } = wanted;
  const block = PLUG_BLOCK_MIB * MIB;
  const pluggedBytes = Math.max(0, Math.ceil((totalBytes - bootBytes) / block) * block);
  if (maxBytes - bootBytes >= block) {
    await machine.execute('qom-set', {
      path: `/machine/peripheral/${PLUGGED_MEMORY}`,
      property: 'requested-size',
      value: pluggedBytes,
    });
  } else if (pluggedBytes > 0) throw new EngineError('internal', 'this machine has no place for more memory');
  // The balloon knows of the memory that the machine was started with, and of none that was plugged (QEMU, get_current_ram_size).
  const unplugged = Math.min(totalBytes, bootBytes);
  await machine.execute('balloon', { value: unplugged });
  const readPlugged = async (): Promise<number> => {
    const devices = memorySchema.parse(await machine.execute('query-memory-devices'));
    return devices.find(({ data }) => data.id === PLUGGED_MEMORY)?.data.size ?? 0;
  };
  const readBalloon = async (): Promise<number> =>
    z.object({ actual: z.number() }).parse(await machine.execute('query-balloon')).actual;
  const deadline = Date.now() + MEMORY_TIMEOUT_MS;
  for (;;) {
    const plugged = await readPlugged();
    const balloon = await readBalloon();
    const actualBytes = balloon + plugged;
    const isPlugged = plugged === pluggedBytes;
    const isTaken = Math.abs(balloon - unplugged) <= unplugged * BALLOON_TOLERANCE;
    if (isPlugged && isTaken) return { actualBytes, note: '' };
    if (Date.now() > deadline) {
      const note = isPlugged
        ? 'the guest has not given its memory back yet; its balloon driver goes on, if it has one'
        : 'the guest has not taken or given up all of it; it needs the virtio_mem driver, and free memory to give';
      return { actualBytes, note };
    }
    // Neither device has an event for every step of a guest that goes along slowly.
    await delay(MEMORY_POLL_MS);
  }
}

const memorySchema = z.array(z.object({ data: z.object({ id: z.string().optional(), size: z.number() }) }));

/** Makes the guest's disk larger; the guest is told, and its partitions stay as they are. */
export async function growDisk(machine: GuestMachine, virtualBytes: number): Promise<void> {
  await machine.execute('block_resize', { 'node-name': 'disk0', size: virtualBytes });
}
