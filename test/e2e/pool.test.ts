import test, { type ExecutionContext } from 'ava';
import { readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { busyboxImage } from '../support/archive.ts';
import { TestDaemon } from '../support/daemon.ts';
import {
  eventually,
  startFacts,
  traces,
  untilWaiting,
  waitingMachines,
  type StartFacts,
  type WaitingMachine,
} from '../support/machines.ts';

const isGone = (pid: number): Promise<boolean> =>
  readlink(`/proc/${pid}/exe`).then(
    () => false,
    () => true,
  );

async function runs(t: ExecutionContext, daemon: TestDaemon): Promise<StartFacts> {
  const run = await daemon.docker(['run', '--name', 'probe', 'busybox', 'echo', 'here']);
  const facts = await startFacts(daemon, 'probe');
  await daemon.docker(['rm', 'probe']);
  t.is(run.stdout, 'here\n', run.stderr);
  return facts;
}

test.serial('a start takes the machine that waits, another one waits soon, and no CPU time goes into it', async (t) => {
  await using daemon = await TestDaemon.start(t);
  await daemon.load();
  const [before] = await untilWaiting(daemon);

  await daemon.docker(['run', '-d', '--name', 'one', 'busybox', 'sleep', '1000']);
  const { machineStart, pid } = await startFacts(daemon, 'one');
  const [after] = await untilWaiting(daemon);
  const ticks = await cpuTicks(after.machinePid);
  await delay(1_000); // The time over which nothing must happen.
  const later = await cpuTicks(after.machinePid);
  await daemon.docker(['kill', 'one']);
  // The shim tells its part at the end.
  const phases = await eventually('all is told', async () => {
    const told = (await startFacts(daemon, 'one')).phases;
    return told.includes('cleared') ? told : undefined;
  });
  await daemon.docker(['rm', 'one']);

  t.is(machineStart, 'pooled');
  t.is(pid, before.machinePid);
  t.true(phases.includes('assigned'), phases.join());
  t.not(after.machinePid, before.machinePid);
  t.is(later, ticks);
  t.deepEqual(await traces(before), [], 'nothing is left of the one that was used');
});

/** User and system time of all threads. Source: proc_pid_stat(5), fields 14 and 15. */
async function cpuTicks(pid: number): Promise<number> {
  const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).replace(/^.*\) /, '').split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

test.serial(
  'a container of another size runs beside the pool, and gets a machine of its size the next time',
  async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();
    await untilWaiting(daemon);
    const sized = ['run', '-d', '-m', '100m', '--cpus', '1', 'busybox', 'sh', '-c', 'nproc; sleep 1000'];

    const first = (await daemon.docker([...sized])).stdout.trim();
    const firstFacts = await startFacts(daemon, first);
    const [small] = await untilWaiting(daemon, 1, ({ vcpus }) => vcpus === 1);
    const second = (await daemon.docker([...sized])).stdout.trim();
    const secondFacts = await startFacts(daemon, second);
    const outputs = [await daemon.until(['logs', first], /\n/), await daemon.until(['logs', second], /\n/)];
    await daemon.docker(['rm', '-f', first, second]);

    t.deepEqual(outputs, ['1\n', '1\n']);
    t.is(firstFacts.machineStart, 'booted');
    t.true(['pooled', 'prepared'].includes(secondFacts.machineStart));
    t.is(secondFacts.pid, small.machinePid);
  },
);

test.serial(
  'an image that is started again and again gets a machine with its layers, which sees what it should',
  async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();
    const script = 'cat /etc/from-image; ls / | wc -l; echo written >/written; cat /written; touch /tmp/x; ls /tmp';
    const seen: string[] = [];

    const prepared = await eventually('a machine is prepared', async () => {
      const run = await daemon.docker(['run', '--name', 'again', 'busybox', 'sh', '-c', script]);
      const { machineStart } = await startFacts(daemon, 'again');
      await daemon.docker(['rm', 'again']);
      seen.push(run.stdout);
      await untilWaiting(daemon);
      return machineStart === 'prepared' || undefined;
    });

    t.true(prepared);
    t.regex(seen[0] ?? '', /^from the image\n\d+\nwritten\nx\n$/);
    t.is(new Set(seen).size, 1, 'no run sees anything of another');
  },
);

for (const [what, pidOf] of [
  ['machine process', ({ machinePid }) => machinePid],
  ['shim', ({ shimPid }) => shimPid],
] as const satisfies readonly [string, (machine: WaitingMachine) => number][]) {
  test.serial(
    `a waiting machine whose ${what} is killed is nobody's harm: the next container runs, nothing is left`,
    async (t) => {
      await using daemon = await TestDaemon.start(t);
      await daemon.load();
      const [before] = await untilWaiting(daemon);

      process.kill(pidOf(before), 'SIGKILL');
      await eventually('it is dead', async () => (await isGone(pidOf(before))) || undefined);
      await runs(t, daemon);
      const [after] = await untilWaiting(daemon);
      const facts = await runs(t, daemon);

      t.deepEqual(await traces(before), []);
      t.not(after.machinePid, before.machinePid);
      t.true(['pooled', 'prepared'].includes(facts.machineStart));
      t.is(await daemon.leaks(), '0 leaks\n');
    },
  );
}

test.serial('a daemon that is killed finds the waiting machine again and uses it', async (t) => {
  await using daemon = await TestDaemon.start(t);
  await daemon.load();
  const [before] = await untilWaiting(daemon);

  await daemon.kill();
  await daemon.start();
  const [after] = await untilWaiting(daemon);
  await daemon.docker(['run', '-d', '--name', 'one', 'busybox', 'sleep', '1000']);
  const { pid } = await startFacts(daemon, 'one');
  await daemon.docker(['rm', '-f', 'one']);

  t.is(after.machinePid, before.machinePid);
  t.is(pid, before.machinePid);
});

test.serial(
  'a daemon killed at any moment of a refill or a start leaves nothing that the next one does not find',
  async (t) => {
    const ROUNDS = 8;
    t.timeout(10 * 60_000);
    await using daemon = await TestDaemon.start(t);
    await daemon.load();

    for (let round = 0; round < ROUNDS; round++) {
      // Every other time there is one to hand out.
      if (round % 2 === 0) await untilWaiting(daemon);
      const client = daemon.docker(['run', '--rm', 'busybox', 'true'], { timeoutMs: 20_000 });
      await delay(Math.random() * 1_500); // The moment of its death is what is tested.
      await daemon.kill();
      await client;
      await daemon.start();
      await runs(t, daemon);
    }
    const names = (await daemon.docker(['ps', '-aq'])).stdout.split('\n').filter(Boolean);
    if (names.length > 0) await daemon.docker(['rm', '-f', ...names]);
    await untilWaiting(daemon);

    t.is(await daemon.leaks(), '0 leaks\n');
    t.is((await waitingMachines(daemon)).length, 1);
  },
);

test.serial('a daemon that is told to end takes its waiting machines with it', async (t) => {
  await using daemon = await TestDaemon.start(t, ['--pool', '2']);
  await daemon.load();
  const machines = await untilWaiting(daemon, 2);

  await daemon.stop();

  for (const machine of machines) t.deepEqual(await traces(machine), []);
  t.deepEqual(await readdir(join(daemon.dataRoot, 'machines')), []);
  t.deepEqual(await readdir(join(daemon.execRoot, 's')), []);
});

test.serial('a daemon that is told to end while it makes machines leaves none', async (t) => {
  await using daemon = await TestDaemon.start(t);

  for (let round = 0; round < 4; round++) {
    await delay(Math.random() * 3_000); // The moment of its end is what is tested.
    await daemon.stop();
    const left = (await readdir(join(daemon.dataRoot, 'machines'))).filter((name) => !name.startsWith('discarded-'));
    const unfinished = (await readdir(join(daemon.dataRoot, 'templates'))).filter((name) => name.endsWith('.new'));

    t.deepEqual([left, unfinished, await readdir(join(daemon.execRoot, 's'))], [[], [], []]);
    t.is(await daemon.leaks(), '0 leaks\n');
    await daemon.start();
  }
});

test.serial('an image that machines were prepared for can be deleted, and nothing keeps its layers', async (t) => {
  await using daemon = await TestDaemon.start(t);
  await daemon.load();
  await eventually('a machine is prepared', async () => {
    await daemon.docker(['run', '--rm', 'busybox', 'true']);
    const [machine] = await untilWaiting(daemon);
    return machine.image !== undefined || undefined;
  });
  const openBefore = await openLayers(daemon);

  const removed = await daemon.docker(['rmi', 'busybox']);
  const layers = (await readdir(join(daemon.dataRoot, 'layers'))).filter((name) => name.endsWith('.erofs'));
  const open = await openLayers(daemon);
  const [waiting] = await untilWaiting(daemon);

  t.true(openBefore.length > 0);
  t.is(removed.code, 0, removed.stderr);
  t.deepEqual(layers, []);
  t.deepEqual(open, []);
  t.is(waiting.image, undefined);
});

/** Layers that any process holds open, by its number. */
async function openLayers(daemon: TestDaemon): Promise<string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const files = await Promise.all(
    pids.map(async (pid) => {
      const fds = await readdir(`/proc/${pid}/fd`).catch(() => []);
      return await Promise.all(fds.map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')));
    }),
  );
  return files.flat().filter((path) => path.startsWith(join(daemon.dataRoot, 'layers')));
}

/** Programs that are no good as a warm-up, and what a start of theirs and their end are. */
const ODD = {
  'runs-for-ever': { command: ['sleep', '1000'], finish: 'kill', start: 0, exit: 137 },
  'fails-at-once': { command: ['false'], finish: 'wait', start: 0, exit: 1 },
  'does-not-exist': { command: ['/no/such/program'], finish: 'wait', start: 127, exit: 127 },
  'kills-what-it-can': { command: ['sh', '-c', 'kill -9 -1; kill -9 1; exit 3'], finish: 'wait', start: 0, exit: 3 },
};

test.serial('images whose programs do not end, fail, are not there or kill are started again and again', async (t) => {
  t.timeout(10 * 60_000);
  await using daemon = await TestDaemon.start(t);
  const busybox = await busyboxImage();
  const images = Object.entries(ODD).map(([name, { command }]) => ({
    ...busybox,
    name: `${name}:latest`,
    config: { Cmd: command },
  }));
  await daemon.load(busybox, ...images);

  for (const [name, { finish, start, exit }] of Object.entries(ODD)) {
    // After the second a machine is prepared by running the program, and the third one gets it or another.
    for (let round = 0; round < 3; round++) {
      const run = await daemon.docker(['run', '-d', '--name', name, name]);
      await daemon.docker([finish, name]);
      const { stdout } = await daemon.docker(['wait', name]);
      await daemon.docker(['rm', name]);
      await untilWaiting(daemon);

      t.deepEqual([run.code, stdout], [start, `${exit}\n`], `${name}: ${run.stderr}`);
    }
  }
  await runs(t, daemon);
});
