import test, { type ExecutionContext } from 'ava';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DiskImages } from '../../../src/machine/disks/disk-images.ts';
import { GuestMachine } from '../../../src/machine/guest/guest-machine.ts';
import type { GuestMachineSpec } from '../../../src/machine/guest/qemu-arguments.ts';
import { newestMachineType } from '../../../src/machine/guest/qemu-host.ts';
import type { ProcessIdentity } from '../../../src/platform/ffi/processes.ts';

/* Real QEMU in emulation; the disk is empty, so its firmware waits for ever. */

interface Started {
  readonly machine: GuestMachine;
  readonly spec: GuestMachineSpec;
  readonly identity: ProcessIdentity;
}

async function makeSpec(t: ExecutionContext): Promise<GuestMachineSpec> {
  const directory = await mkdtemp(join(tmpdir(), 'bulkhead-guest-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const disks = new DiskImages({ allowedDirectories: [] });
  const base = join(directory, 'base, with a comma.qcow2');
  const disk = join(directory, 'disk.qcow2');
  await disks.create(base, { format: 'qcow2', virtualBytes: 64 * 1024 ** 2 });
  await disks.create(disk, { format: 'qcow2', virtualBytes: undefined, base: { path: base, format: 'qcow2' } });
  return {
    name: 'web',
    uuid: '00112233-4455-6677-8899-aabbccddeeff',
    machineType: await newestMachineType(),
    accelerator: 'tcg',
    vcpus: 2,
    maxVcpus: 4,
    memoryBytes: 128 * 1024 ** 2,
    maxMemoryBytes: 512 * 1024 ** 2,
    firmware: { kind: 'bios' },
    disk: [
      { path: disk, format: 'qcow2' },
      { path: base, format: 'qcow2' },
    ],
    seed: undefined,
    network: undefined,
    uid: 1_900_065_000,
    runtimeDir: join(directory, 'run'),
    emptyRoot: join(directory, 'empty'),
    consoleLog: join(directory, 'console.log'),
  };
}

async function start(t: ExecutionContext, spec: GuestMachineSpec): Promise<Started> {
  const spawned: ProcessIdentity[] = [];
  const onSpawn = (identity: ProcessIdentity): void => void spawned.push(identity);
  const machine = await GuestMachine.start(spec, { logPath: join(spec.runtimeDir, '../machine.log'), onSpawn });
  t.teardown(async () => {
    await machine.kill();
    machine[Symbol.dispose]();
  });
  const [identity] = spawned;
  if (!identity) throw new Error('nobody was told of the process');
  return { machine, spec, identity };
}

test('a machine has what it was given, and its process has given up root', async (t) => {
  const { machine, identity, spec } = await start(t, await makeSpec(t));
  t.like(await machine.execute('query-status'), { status: 'running' });
  const blocks = JSON.stringify(await machine.execute('query-named-block-nodes'));
  t.true(blocks.includes('"disk0"') && blocks.includes('"base1"'));
  const status = await readFile(`/proc/${identity.pid}/status`, 'utf8');
  t.regex(status, new RegExp(`^Uid:\\s+${spec.uid}\\s`, 'm'));
  t.regex(status, /^CapEff:\s+0000000000000000$/m);
  t.regex(status, /^Seccomp:\s+2$/m);
  t.false(machine.isAgentOpen);
});

test('a machine outlives who started it, is taken up again, and its end is then told', async (t) => {
  const { machine, spec, identity } = await start(t, await makeSpec(t));
  machine[Symbol.dispose]();
  const again = await GuestMachine.adopt(identity, spec.runtimeDir);
  if (!again) throw new Error('it is gone');
  t.like(await again.execute('query-name'), { name: 'web' });
  await again.kill();
  t.is(await again.ended, 'killed');
  t.is(await GuestMachine.adopt(identity, spec.runtimeDir), undefined);
});

test('a power button that no system listens to is told from a shutdown', async (t) => {
  const { machine } = await start(t, await makeSpec(t));
  t.false(await machine.powerDown(700));
  t.like(await machine.execute('query-status'), { running: true });
});

test("what the monitor refuses is an error with QEMU's words", async (t) => {
  const { machine } = await start(t, await makeSpec(t));
  await t.throwsAsync(machine.execute('device_add', { driver: 'no-such-device' }), { message: /no-such-device/ });
});

test('a machine that cannot start says why, and leaves no process', async (t) => {
  const spec = { ...(await makeSpec(t)), disk: [{ path: '/nonexistent/disk.qcow2', format: 'qcow2' as const }] };
  const spawned: ProcessIdentity[] = [];
  const starting = GuestMachine.start(spec, {
    logPath: join(spec.runtimeDir, '../machine.log'),
    onSpawn: (identity) => void spawned.push(identity),
  });
  await t.throwsAsync(starting, { message: /machine web did not start: .*\/nonexistent\/disk\.qcow2/s });
  t.throws(() => process.kill(spawned[0]?.pid ?? -1, 0), { code: 'ESRCH' });
});
