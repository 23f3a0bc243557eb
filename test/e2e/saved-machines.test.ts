import test, { type ExecutionContext } from 'ava';
import { open, readdir, readFile, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { hashSparse } from '../../src/platform/ffi/files.ts';
import { TestDaemon } from '../support/daemon.ts';
import {
  eventually,
  savedMachines,
  startFacts,
  untilAged,
  untilSaved,
  type SavedMachine,
  type StartFacts,
} from '../support/machines.ts';

/** Machines are restored at the start, none waits. */
const RESTORED = ['--pool', '0'];

/** A daemon that has saved no machine yet, and does so for itself. */
const startDaemon = (t: ExecutionContext, args = RESTORED): Promise<TestDaemon> =>
  TestDaemon.start(t, args, {}, { sharesMachines: false });

/** After it the next start of the default size comes from a saved machine. */
async function saveMachine(t: ExecutionContext, daemon: TestDaemon): Promise<SavedMachine> {
  await daemon.load();
  await assertRestoresSoon(t, daemon);
  return await untilSaved(daemon);
}

async function assertRuns(t: ExecutionContext, daemon: TestDaemon, how: StartFacts['machineStart']): Promise<void> {
  const run = await daemon.docker(['run', '--name', 'probe', 'busybox', 'echo', 'here']);
  const { machineStart } = await startFacts(daemon, 'probe');
  await daemon.docker(['rm', 'probe']);
  t.is(run.stdout, 'here\n', run.stderr);
  t.is(machineStart, how);
}

/** A saved machine is on disk some moments before it is used: it is looked through first. */
async function assertRestoresSoon(t: ExecutionContext, daemon: TestDaemon): Promise<void> {
  await eventually('a machine is restored', async () => {
    const run = await daemon.docker(['run', '--name', 'probe', 'busybox', 'echo', 'here']);
    const { machineStart } = await startFacts(daemon, 'probe');
    await daemon.docker(['rm', 'probe']);
    t.is(run.stdout, 'here\n', run.stderr);
    return machineStart === 'restored' || undefined;
  });
}

/** Changes one bit in the first page that has something in it. */
async function flipBit(path: string): Promise<void> {
  await using file = await open(path, 'r+');
  const page = Buffer.alloc(4096);
  for (let at = 0; ; at += page.length) {
    const { bytesRead } = await file.read(page, 0, page.length, at);
    if (bytesRead === 0) throw new Error(`${path} has nothing but zeroes`);
    const index = page.findIndex((byte) => byte !== 0);
    if (index < 0) continue;
    await file.write(Buffer.from([(page[index] ?? 0) ^ 1]), 0, 1, at + index);
    return;
  }
}

test.serial(
  'a machine is saved at the first start, the second one is restored from it, sized ones get their own',
  async (t) => {
    await using daemon = await startDaemon(t);
    await daemon.load();

    await assertRuns(t, daemon, 'booted');
    await assertRestoresSoon(t, daemon);
    const small = await daemon.docker(['run', '--rm', '-m', '100m', '--cpus', '1', 'busybox', 'nproc']);

    t.is(small.stdout, '1\n', small.stderr);
  },
);

test.serial('without saved machines every machine boots, and nothing is saved', async (t) => {
  await using daemon = await startDaemon(t, ['--no-saved-machines']);
  await daemon.load();

  await assertRuns(t, daemon, 'booted');
  await assertRuns(t, daemon, 'booted');

  t.deepEqual(await savedMachines(daemon), []);
});

test.serial('what 20 clones wrote to memory and disk is in no saved machine', async (t) => {
  t.timeout(10 * 60_000);
  await using daemon = await startDaemon(t);
  const saved = await saveMachine(t, daemon);
  const before = await Promise.all([hashSparse(saved.ramPath), hashSparse(saved.statePath)]);
  const script =
    'yes written | head -c 2000000 | tee /on-disk >/dev/shm/in-memory; sync; md5sum <on-disk; md5sum </dev/shm/in-memory';

  const outputs = [];
  for (let clone = 0; clone < 20; clone++) {
    const run = await daemon.docker(['run', '--name', 'clone', 'busybox', 'sh', '-c', script]);
    outputs.push(run.stdout);
    t.is((await startFacts(daemon, 'clone')).machineStart, 'restored');
    await daemon.docker(['rm', 'clone']);
  }
  const after = await Promise.all([hashSparse(saved.ramPath), hashSparse(saved.statePath)]);
  const manifest = JSON.parse(await readFile(saved.manifestPath, 'utf8')) as { ramSha256: string; stateSha256: string };

  t.regex(outputs[0] ?? '', /^([0-9a-f]{32}) {2}-\n\1 {2}-\n$/);
  t.deepEqual(new Set(outputs).size, 1);
  t.deepEqual(after, before);
  t.deepEqual(
    [manifest.ramSha256, manifest.stateSha256],
    after.map(({ sha256 }) => sha256),
  );
});

test.serial(
  'a saved machine that was damaged while no daemon ran is made anew, and containers run meanwhile',
  async (t) => {
    await using daemon = await startDaemon(t);
    const saved = await saveMachine(t, daemon);

    await daemon.stop();
    await flipBit(saved.ramPath);
    await daemon.start();
    await assertRuns(t, daemon, 'booted');
    await assertRestoresSoon(t, daemon);

    t.true((await untilSaved(daemon)).createdAtMs > saved.createdAtMs);
  },
);

test.serial(
  'a saved machine that is damaged under a daemon that uses it is made anew, and containers run meanwhile',
  async (t) => {
    await using daemon = await startDaemon(t);
    let saved = await saveMachine(t, daemon);

    for (const damage of [
      () => flipBit(saved.ramPath),
      async () => truncate(saved.statePath, Math.floor((await stat(saved.statePath)).size / 2)),
    ]) {
      await damage();
      await assertRuns(t, daemon, 'booted');
      await assertRestoresSoon(t, daemon);
      const anew = await untilSaved(daemon);

      t.true(anew.createdAtMs > saved.createdAtMs);
      saved = anew;
    }
  },
);

test.serial(
  'a saved machine that is whole by its digests and cannot be restored is made anew; its container boots',
  async (t) => {
    await using daemon = await startDaemon(t);
    const saved = await saveMachine(t, daemon);

    await daemon.stop();
    await writeFile(saved.statePath, 'no state of a machine');
    const [ram, state] = await Promise.all([hashSparse(saved.ramPath), hashSparse(saved.statePath)]);
    const manifest = { ramSha256: ram.sha256, stateSha256: state.sha256, createdAtMs: saved.createdAtMs };
    await writeFile(saved.manifestPath, JSON.stringify(manifest));
    await daemon.start();
    await daemon.docker(['run', '--rm', 'busybox', 'true']);
    await assertRuns(t, daemon, 'booted');
    await assertRestoresSoon(t, daemon);

    t.true((await untilSaved(daemon)).createdAtMs > saved.createdAtMs);
  },
);

test.serial('a daemon that dies while it saves a machine leaves nothing half made', async (t) => {
  await using daemon = await startDaemon(t);
  await daemon.load();

  const run = daemon.docker(['run', '--rm', 'busybox', 'true'], { timeoutMs: 20_000 });
  await untilAged(Date.now(), 500);
  await daemon.kill();
  await run;
  await daemon.start();
  await assertRuns(t, daemon, 'booted');
  await assertRestoresSoon(t, daemon);

  const left = (await readdir(join(daemon.dataRoot, 'templates'))).filter((name) => name.endsWith('.new'));
  t.deepEqual(left, []);
  t.is((await savedMachines(daemon)).length, 1);
});
