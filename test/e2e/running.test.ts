import test from 'ava';
import { TestDaemon, type Outcome } from '../support/daemon.ts';

for (const wall of ['os', 'vm'] as const) {
  const run = (daemon: TestDaemon, name: string, script: string, ...flags: string[]): Promise<Outcome> =>
    daemon.docker(['run', '-d', '--isolation', wall, '--name', name, ...flags, 'busybox', 'sh', '-c', script]);

  test.serial(`${wall}: a paused container stands still, says so, and goes on where it was`, async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();
    await run(daemon, 'aa', 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done');
    await daemon.until(['logs', 'aa'], /\n5\n/);

    const paused = await daemon.docker(['pause', 'aa']);
    const before = await daemon.docker(['logs', 'aa']);
    const shown = await daemon.docker(['ps', '--format', '{{.Status}}']);
    const state = await daemon.docker([
      'inspect',
      '-f',
      '{{.State.Status}} {{.State.Running}} {{.State.Paused}}',
      'aa',
    ]);
    const exec = await daemon.docker(['exec', 'aa', 'true']);
    const again = await daemon.docker(['pause', 'aa']);
    const removal = await daemon.docker(['rm', 'aa']);
    const top = await daemon.docker(['top', 'aa', '-o', 'pid,comm']);
    const stats = await daemon.docker(['stats', '--no-stream', '--format', '{{.CPUPerc}}', 'aa']);
    const after = await daemon.docker(['logs', 'aa']);
    const unpaused = await daemon.bulkhead(['unpause', 'aa']);
    await daemon.until(['logs', 'aa'], new RegExp(`\n${before.stdout.trim().split('\n').length + 5}\n`));
    const unpausedAgain = await daemon.docker(['unpause', 'aa']);

    t.is(paused.stdout, 'aa\n', paused.stderr);
    t.regex(shown.stdout, /\(Paused\)/);
    t.is(state.stdout, 'paused true true\n');
    t.regex(exec.stderr, /is paused, unpause the container before exec/);
    t.regex(again.stderr, /is already paused/);
    t.regex(removal.stderr, /container is paused: unpause and then stop the container before removing or force remove/);
    t.regex(top.stdout, /sh/);
    t.is(stats.stdout, '0.00%\n');
    t.is(after.stdout, before.stdout);
    t.is(unpaused.stdout, 'aa\n', unpaused.stderr);
    t.regex(unpausedAgain.stderr, /is not paused/);
  });

  test.serial(`${wall}: paused containers are stopped, killed and removed`, async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();
    for (const name of ['stopped', 'killed', 'removed']) {
      await run(daemon, name, 'trap "exit 4" TERM; echo up; while :; do sleep 0.05; done');
      await daemon.until(['logs', name], /up/);
    }

    await daemon.docker(['pause', 'stopped', 'killed', 'removed']);
    const stopped = await daemon.docker(['stop', '-t', '5', 'stopped']);
    const killed = await daemon.docker(['kill', 'killed']);
    const removed = await daemon.docker(['rm', '-f', 'removed']);
    const codes = await daemon.docker(['inspect', '-f', '{{.State.ExitCode}}', 'stopped', 'killed']);

    t.deepEqual([stopped.code, killed.code, removed.code], [0, 0, 0]);
    t.is(codes.stdout, '4\n137\n');
  });

  test.serial(`${wall}: a pause outlives the daemon`, async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();
    await run(daemon, 'aa', 'while :; do echo tick; sleep 0.05; done');
    await daemon.until(['logs', 'aa'], /tick/);

    await daemon.docker(['pause', 'aa']);
    await daemon.kill();
    await daemon.start();
    const state = await daemon.docker(['inspect', '-f', '{{.State.Status}}', 'aa']);
    const unpaused = await daemon.docker(['unpause', 'aa']);

    t.is(state.stdout, 'paused\n');
    t.is(unpaused.code, 0, unpaused.stderr);
  });

  test.serial(`${wall}: top shows the container's processes and no others`, async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();
    await run(daemon, 'aa', 'sleep 1001 & exec sleep 1002', '-u', '1234');
    await daemon.until(['top', 'aa'], /1002/);

    const full = await daemon.docker(['top', 'aa']);
    const chosen = await daemon.bulkhead(['top', 'aa', '-o', 'user,args,pid']);
    const refused = await daemon.docker(['top', 'aa', '-o', 'args']);
    await daemon.docker(['rm', '-f', 'aa']);
    await daemon.docker(['create', '--name', 'bb', 'busybox', 'true']);
    const notRunning = await daemon.docker(['top', 'bb']);

    t.regex(full.stdout, /^UID +PID +PPID +C +STIME +TTY +TIME +CMD\n/);
    t.is(full.stdout.trim().split('\n').length, 3);
    t.deepEqual(
      chosen.stdout
        .trim()
        .split('\n')
        .map((line) => line.split(/ +/).slice(0, -1).join(' '))
        .sort(),
      ['1234 sleep 1001', '1234 sleep 1002', 'USER COMMAND'],
    );
    t.regex(refused.stderr, /Couldn't find PID field in ps output/);
    t.regex(notRunning.stderr, /is not running/);
  });

  test.serial(`${wall}: stats follow what the container does`, async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();
    // A file of 20 MiB in memory, and one CPU's worth of work at most.
    const script = 'dd if=/dev/zero of=/dev/shm/f bs=1M count=20 2>/dev/null; echo up; while :; do :; done';
    await run(daemon, 'aa', script, '--cpus', '0.5', '--memory', '100m', '--pids-limit', '40');
    await daemon.until(['logs', 'aa'], /up/);
    await daemon.docker(['create', '--name', 'idle', 'busybox', 'true']);

    const format = '{{.Name}} {{.CPUPerc}} {{.MemUsage}} {{.PIDs}} {{.NetIO}}';
    const text = await daemon.docker(['stats', '--no-stream', '--format', format, 'aa', 'idle']);
    const own = await daemon.bulkhead(['stats', '--no-stream', '--format', '{{.Name}} {{.CPUPerc}} {{.PIDs}}', 'aa']);
    const [busy = '', idle = ''] = text.stdout.trim().split('\n');
    const cpu = Number(/^aa ([\d.]+)%/.exec(busy)?.[1]);

    // Half a CPU, as measured on a host that is busy with other things.
    t.true(cpu > 20 && cpu < 90, busy);
    t.regex(busy, /^aa [\d.]+% 2\d(\.\d+)?MiB \/ 100MiB 1 [\d.]+k?B \//);
    t.regex(idle, /^idle 0\.00% 0B \/ 0B 0 0B \/ 0B$/);
    t.regex(own.stdout, /^aa [2-8]\d(\.\d+)?% 1\n$/);
  });

  test.serial(`${wall}: limits of a running container change, and its kernel enforces them`, async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();
    await run(daemon, 'aa', 'sleep 1000', '--memory', '100m');

    const updated = await daemon.docker(['update', '--cpus', '0.5', '--memory', '64m', '--pids-limit', '20', 'aa']);
    const limits =
      wall === 'vm'
        ? 'cd /sys/fs/cgroup; cat cpu.max memory.max pids.max'
        : 'cd /sys/fs/cgroup; cat cpu/cpu.cfs_quota_us memory/memory.limit_in_bytes pids/pids.max 2>/dev/null || cat cpu.max memory.max pids.max';
    const inside = await daemon.docker(['exec', 'aa', 'sh', '-c', limits]);
    const forks = await daemon.docker(['exec', 'aa', 'sh', '-c', 'for i in $(seq 40); do sleep 60 & done; wait']);
    await daemon.docker(['exec', 'aa', 'sh', '-c', 'killall sleep -q; true']);
    const shown = await daemon.docker([
      'inspect',
      '-f',
      '{{.HostConfig.NanoCpus}} {{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}',
      'aa',
    ]);

    t.is(updated.stdout, 'aa\n', updated.stderr);
    t.regex(inside.stdout, /^50000( 100000)?\n67108864\n20\n$/);
    t.regex(forks.stderr, /can't fork/);
    t.is(shown.stdout, '500000000 67108864 20\n');
  });
}

test.serial(
  'vm: more than the running machine has is refused with the numbers, and granted to the next machine',
  async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();
    await daemon.docker([
      'run',
      '-d',
      '--isolation',
      'vm',
      '--cpus',
      '1',
      '--memory',
      '100m',
      '--name',
      'aa',
      'busybox',
      'sleep',
      '1000',
    ]);

    const memory = await daemon.docker(['update', '--memory', '800m', 'aa']);
    const cpus = await daemon.docker(['update', '--cpus', '2', 'aa']);
    const unchanged = await daemon.docker(['inspect', '-f', '{{.HostConfig.NanoCpus}} {{.HostConfig.Memory}}', 'aa']);
    await daemon.docker(['stop', '-t', '0', 'aa']);
    const stopped = await daemon.bulkhead(['update', '--cpus', '2', '--memory', '800m', 'aa']);
    await daemon.docker(['start', 'aa']);
    const guest = await daemon.docker(['exec', 'aa', 'sh', '-c', 'nproc; cat /sys/fs/cgroup/memory.max']);
    const facts = await daemon.docker(['inspect', '-f', '{{.Bulkhead.vcpus}} {{.Bulkhead.memoryBytes}}', 'aa']);

    t.regex(
      memory.stderr,
      /its running machine has \d+ MiB of memory for it, 800 MiB are asked for; stop it, update it/,
    );
    t.regex(cpus.stderr, /its running machine has 1 virtual CPUs, 2 are asked for/);
    t.is(unchanged.stdout, `1000000000 ${100 * 1024 * 1024}\n`);
    t.is(stopped.stdout, 'aa\n', stopped.stderr);
    t.is(guest.stdout, `2\n${800 * 1024 * 1024}\n`);
    t.is(facts.stdout, `2 ${800 * 1024 * 1024}\n`);
  },
);
