import test, { type ExecutionContext } from 'ava';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { TestDaemon } from '../support/daemon.ts';
import { eventually, startFacts, untilAged, untilSaved, untilWaiting, type StartFacts } from '../support/machines.ts';

/** How machines begin, the daemon's options for that, and what has to be there before. */
const beginnings: readonly [StartFacts['machineStart'], readonly string[], (daemon: TestDaemon) => Promise<void>][] = [
  ['booted', ['--no-saved-machines'], () => Promise.resolve()],
  [
    'restored',
    ['--pool', '0'],
    async (daemon) => {
      await eventually('a machine is restored', async () => {
        await daemon.docker(['run', '--name', 'probe', 'busybox', 'true']);
        const { machineStart } = await startFacts(daemon, 'probe');
        await daemon.docker(['rm', 'probe']);
        return machineStart === 'restored' || undefined;
      });
      await untilAged((await untilSaved(daemon)).createdAtMs, 5_000);
    },
  ],
  [
    'pooled',
    ['--pool', '2', '--no-pool-images'],
    async (daemon) => {
      for (const { id } of await untilWaiting(daemon, 2)) {
        const { mtimeMs } = await stat(join(daemon.dataRoot, 'machines', id, 'machine.json'));
        await untilAged(mtimeMs, 5_000);
      }
    },
  ],
];

/** Each fact that no two machines may share, read by the first program that runs in them. */
const FACTS: Readonly<Record<string, string>> = {
  urandom: 'head -c 32 /dev/urandom | md5sum',
  uuid: 'cat /proc/sys/kernel/random/uuid',
  bootId: 'cat /proc/sys/kernel/random/boot_id',
  hostname: 'hostname',
  uname: 'uname -n',
  mac: 'cat /sys/class/net/eth0/address',
  address: "ip -o -4 addr show dev eth0 | awk '{print $4}'",
  stack: "awk '/stack/ {print $1}' /proc/self/maps",
};
const SCRIPT = [
  ...Object.entries(FACTS).map(([name, command]) => `printf "${name} "; ${command}`),
  'date +"date %s"',
  'echo end .',
  'sleep 1000',
].join('; ');

interface Clone {
  readonly facts: Readonly<Record<string, string>>;
  readonly id: string;
  /** By the host, before and after. */
  readonly betweenMs: readonly [number, number];
}

async function startClone(t: ExecutionContext, daemon: TestDaemon, how: StartFacts['machineStart']): Promise<Clone> {
  const beforeMs = Date.now();
  const { stdout, stderr } = await daemon.docker(['run', '-d', 'busybox', 'sh', '-c', SCRIPT]);
  const id = stdout.trim();
  const output = await daemon.until(['logs', id], /^end/m);
  t.is((await startFacts(daemon, id)).machineStart, how, stderr);
  const facts = Object.fromEntries(output.split('\n').map((line) => line.split(' ', 2) as [string, string]));
  return { facts, id, betweenMs: [beforeMs, Date.now()] };
}

for (const [how, args, prepare] of beginnings) {
  test.serial(
    `two machines that were ${how} share nothing that must be theirs and know the time, and one without a network has none`,
    async (t) => {
      await using daemon = await TestDaemon.start(t, args);
      await daemon.load();
      await prepare(daemon);

      const clones = [await startClone(t, daemon, how), await startClone(t, daemon, how)];
      await daemon.docker(['rm', '-f', ...clones.map(({ id }) => id)]);

      for (const name of Object.keys(FACTS)) {
        const values = clones.map(({ facts }) => facts[name] ?? '');
        t.true(
          values.every((value) => value.length > 4),
          `${name}: ${values.join()}`,
        );
        t.is(new Set(values).size, 2, `${name}: ${values.join()}`);
      }
      for (const { facts, id, betweenMs } of clones) {
        const dateMs = Number(facts['date']) * 1000;
        t.is(facts['hostname'], id.slice(0, 12));
        t.true(dateMs >= betweenMs[0] - 1_000 && dateMs <= betweenMs[1] + 1_000, `${dateMs} in ${betweenMs.join('–')}`);
      }

      await prepare(daemon);
      const script =
        "ls /sys/class/net; awk 'NR > 2 {print $1}' /proc/net/dev; ip -o addr | awk '{print $2, $4}'; ip route; hostname";
      const alone = ['--network', 'none', '-h', 'hermit'];
      const run = await daemon.docker(['run', '--name', 'alone', ...alone, 'busybox', 'sh', '-c', script]);
      const { machineStart } = await startFacts(daemon, 'alone');
      await daemon.docker(['rm', 'alone']);

      t.is(machineStart, how);
      t.is(run.stdout.replace('lo ::1/128\n', ''), 'lo\nlo:\nlo 127.0.0.1/8\nhermit\n', run.stderr);
    },
  );
}
