import { setTimeout as delay } from 'node:timers/promises';
import { EngineError } from '../core/errors.ts';
import type { HostResources } from '../core/resources.ts';
import { qemuImgInfo, qemuImgResize } from '../machine/disks/qemu-img.ts';
import { growDisk, setMemory, setVcpus } from '../machine/guest/live-allocation.ts';
import { PLUG_BLOCK_MIB } from '../machine/guest/qemu-arguments.ts';
import type { GuestAllocationRequest, GuestAllocationResult } from '../wire/guest.ts';
import type { GuestHost } from './guest-host.ts';
import { assertFits } from './guest-plan.ts';
import type { GuestRecord, GuestTable } from './guest-record.ts';
import type { RunningGuest } from './guest-runner.ts';

type Change = GuestAllocationResult['changes'][number];

const CPU_TIMEOUT_MS = 20_000;
const CPU_POLL_MS = 250;
const PLUG_BLOCK_BYTES = PLUG_BLOCK_MIB * 1024 ** 2;

export interface AllocationContext {
  readonly table: GuestTable;
  readonly host: GuestHost;
  readonly hostResources: HostResources;
  readonly canHotplugCpus: boolean;
}

/**
 * Changes what a guest has: at once if it runs, else from its next start on. All wishes are checked before the first is fulfilled; what
 * came of each is told as the guest confirmed it. Called under the guest's lock.
 */
export async function allocate(
  context: AllocationContext,
  record: GuestRecord,
  running: RunningGuest | undefined,
  request: GuestAllocationRequest,
): Promise<Change[]> {
  const isLive = running !== undefined && request.nextBoot !== true;
  check(context, record, request, isLive);
  const changes: Change[] = [];
  const save = (change: Partial<GuestRecord>): void => {
    const now = context.table.get(record.id);
    if (now) context.table.update({ ...now, ...change });
  };
  const { diskBytes, memoryBytes, vcpus } = request;
  if (diskBytes !== undefined) {
    changes.push(running ? await growLive(running, diskBytes) : await growStopped(context.host, record, diskBytes));
    save({ diskBytes });
  }
  if (memoryBytes !== undefined) {
    save({ memoryBytes, maxMemoryBytes: Math.max(record.maxMemoryBytes, memoryBytes) });
    changes.push(isLive ? await memoryLive(running, record, memoryBytes) : later('memory', memoryBytes, running));
  }
  if (vcpus !== undefined) {
    save({ vcpus, maxVcpus: Math.max(record.maxVcpus, vcpus) });
    changes.push(isLive ? await vcpusLive(running, vcpus, context.canHotplugCpus) : later('cpus', vcpus, running));
  }
  return changes;
}

function check(
  context: AllocationContext,
  record: GuestRecord,
  request: GuestAllocationRequest,
  isLive: boolean,
): void {
  const { name } = record;
  const { vcpus = record.vcpus, memoryBytes = record.memoryBytes, diskBytes } = request;
  assertFits({ vcpus, memoryBytes }, context.hostResources);
  const refuse = (what: string, asked: string, used: string, limit: string): never => {
    throw new EngineError(
      'limit-exceeded',
      `guest ${name}: ${asked} ${what} are more than it can have while it runs (it has ${used}, the most is ${limit}); change it with --next-boot, and restart it`,
      { details: { asked, used, limit } },
    );
  };
  if (isLive && vcpus > record.maxVcpus) refuse('vCPUs', String(vcpus), String(record.vcpus), String(record.maxVcpus));
  if (isLive && memoryBytes > record.maxMemoryBytes) {
    refuse('MiB of memory', mib(memoryBytes), mib(record.memoryBytes), mib(record.maxMemoryBytes));
  }
  if (isLive && memoryBytes > (record.bootMemoryBytes ?? 0)) {
    const above = memoryBytes - (record.bootMemoryBytes ?? memoryBytes);
    if (above % PLUG_BLOCK_BYTES !== 0) {
      const step = Math.ceil(above / PLUG_BLOCK_BYTES) * PLUG_BLOCK_BYTES + (record.bootMemoryBytes ?? 0);
      throw new EngineError(
        'invalid-argument',
        `guest ${name}: memory is added to what it was started with in steps of ${PLUG_BLOCK_MIB} MiB; the next is ${mib(step)}M`,
      );
    }
  }
  if (diskBytes === undefined) return;
  if (diskBytes % 512 !== 0)
    throw new EngineError('invalid-argument', `${diskBytes} bytes is no number of disk sectors`);
  if (diskBytes < record.diskBytes) {
    throw new EngineError(
      'invalid-argument',
      `guest ${name}: its disk has ${mib(record.diskBytes)} MiB, and ${mib(diskBytes)} would cut off the end of it; disks of guests only grow`,
      { details: { asked: diskBytes, used: record.diskBytes } },
    );
  }
}

function later(what: Change['what'], asked: number, running: RunningGuest | undefined): Change {
  return { what, asked, note: running ? 'from its next start on' : '' };
}

async function vcpusLive(guest: RunningGuest, asked: number, canHotplug: boolean): Promise<Change> {
  const { count, note } = await setVcpus(guest.machine, asked, canHotplug);
  if (!guest.machine.isAgentOpen) {
    const text = `the machine has ${count}; without an agent in the guest nobody can say, or change, how many it uses`;
    return { what: 'cpus', asked, note: note || text };
  }
  // A guest learns of a new CPU by ACPI, a moment later, and does not use it by itself.
  const deadline = Date.now() + CPU_TIMEOUT_MS;
  let actual = await guest.agent.useCpus(asked);
  while (actual !== asked && Date.now() < deadline) {
    await delay(CPU_POLL_MS);
    actual = await guest.agent.useCpus(asked);
  }
  return { what: 'cpus', asked, actual, note: actual === asked ? '' : note || 'the guest has not come as far' };
}

async function memoryLive(guest: RunningGuest, record: GuestRecord, asked: number): Promise<Change> {
  if (guest.machine.isAgentOpen) await setAutoOnline(guest);
  const bootBytes = record.bootMemoryBytes ?? record.memoryBytes;
  const { actualBytes, note } = await setMemory(guest.machine, {
    totalBytes: asked,
    bootBytes,
    maxBytes: Math.max(bootBytes, record.maxMemoryBytes),
  });
  return { what: 'memory', asked, actual: actualBytes, note };
}

/** Linux leaves new memory unused unless it is told otherwise; as "movable" it can be given back. Other systems do this by themselves. */
async function setAutoOnline(guest: RunningGuest): Promise<void> {
  const script = 'f=/sys/devices/system/memory/auto_online_blocks; [ ! -w $f ] || echo online_movable >$f';
  await guest.agent.exec({ path: '/bin/sh', args: ['-c', script] }).catch((error: unknown) => {
    if (!(error instanceof EngineError) || error.code !== 'invalid-argument') throw error;
  });
}

async function growStopped(host: GuestHost, record: GuestRecord, asked: number): Promise<Change> {
  const { disk } = host.paths(record.id);
  const { virtualBytes } = await qemuImgInfo(disk, 'qcow2');
  if (asked > virtualBytes) await qemuImgResize(disk, 'qcow2', { virtualBytes: asked, shrink: false });
  return {
    what: 'disk.root',
    asked,
    note: 'the guest makes its file system larger at its next start, if it has cloud-init',
  };
}

async function growLive(guest: RunningGuest, asked: number): Promise<Change> {
  await growDisk(guest.machine, asked);
  if (!guest.machine.isAgentOpen) {
    return { what: 'disk.root', asked, note: 'no agent in the guest: make its partition and file system larger in it' };
  }
  const { exitCode, stdout, stderr } = await guest.agent.exec({ path: '/bin/sh', args: ['-c', GROW_SCRIPT] });
  const actual = Number(stdout.toString('utf8').trim().split('\n').at(-1));
  if (exitCode === 0 && Number.isSafeInteger(actual)) return { what: 'disk.root', asked, actual, note: '' };
  const said = stderr.toString('utf8').trim().slice(-300) || `exit code ${exitCode}`;
  return { what: 'disk.root', asked, note: `the disk has grown, the file system in the guest has not: ${said}` };
}

/** In the guest: the partition of the root file system, then the file system; its last line is the partition's size. growpart says 1 for "no change". */
const GROW_SCRIPT = `set -e
root=$(findmnt -nro SOURCE /)
disk=/dev/$(lsblk -ndo PKNAME "$root")
number=\${root##*[!0-9]}
growpart "$disk" "$number" >&2 || [ $? = 1 ]
case $(findmnt -nro FSTYPE /) in
  ext*) resize2fs "$root" >&2 ;;
  xfs) xfs_growfs / >&2 ;;
  btrfs) btrfs filesystem resize max / >&2 ;;
  *) echo "no tool is known for the file system of /" >&2; exit 1 ;;
esac
lsblk -bndo SIZE "$root"`;

function mib(bytes: number): string {
  return String(Math.floor(bytes / 1024 ** 2));
}
