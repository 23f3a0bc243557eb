import { setTimeout as delay } from 'node:timers/promises';
import test from 'ava';
import { TestDaemon, type Outcome } from '../support/daemon.ts';

const STATUS = ['inspect', '-f', '{{.State.Health.Status}} {{.State.Health.FailingStreak}}'];

for (const wall of ['os', 'vm'] as const) {
  const run = (daemon: TestDaemon, name: string, probe: string, ...flags: string[]): Promise<Outcome> =>
    daemon.docker([
      ...['run', '-d', '--isolation', wall, '--name', name, '--health-cmd', probe],
      ...['--health-interval', '200ms', '--health-retries', '2', ...flags],
      ...['busybox', 'sleep', '1000'],
    ]);

  test.serial(
    `${wall}: health goes from starting to healthy to unhealthy, seen by inspect, ps and events`,
    async (t) => {
      await using daemon = await TestDaemon.start(t);
      await daemon.load();
      const since = String(Math.floor(Date.now() / 1000) - 1);

      await run(daemon, 'aa', 'echo from the probe; test ! -e /sick', '--health-interval', '500ms');
      const begun = await daemon.docker(['ps', '--format', '{{.Status}}']);
      await daemon.until([...STATUS, 'aa'], /^healthy 0/);
      const healthy = await daemon.docker(['ps', '--filter', 'health=healthy', '--format', '{{.Status}}']);
      await daemon.docker(['exec', 'aa', 'touch', '/sick']);
      await daemon.until([...STATUS, 'aa'], /^unhealthy [2-9]/);
      const log = await daemon.docker([
        'inspect',
        '-f',
        '{{range .State.Health.Log}}{{.ExitCode}} {{.Output}}{{end}}',
        'aa',
      ]);
      await daemon.docker(['exec', 'aa', 'rm', '/sick']);
      await daemon.until([...STATUS, 'aa'], /^healthy 0/);
      const until = String(Math.floor(Date.now() / 1000) + 1);
      await delay(1_100); // `--until` must lie in the past for the stream to end by itself.
      const window = ['events', '--since', since, '--until', until, '--format', '{{.Action}}'];
      const changes = await daemon.docker([...window, '--filter', 'event=health_status']);
      const probes = await daemon.docker([...window, '--filter', 'event=exec_create']);

      t.regex(begun.stdout, /\(health: starting\)/);
      t.regex(healthy.stdout, /\(healthy\)/);
      t.regex(log.stdout, /1 from the probe\n\n$/);
      t.is(changes.stdout, 'health_status: healthy\nhealth_status: unhealthy\nhealth_status: healthy\n');
      t.regex(probes.stdout, /exec_create: \/bin\/sh -c echo from the probe/);
    },
  );

  test.serial(`${wall}: a probe that hangs is killed, and one that cannot be run says why`, async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();

    await run(daemon, 'slow', 'exec sleep 500', '--health-timeout', '300ms');
    await daemon.docker([
      ...['run', '-d', '--isolation', wall, '--name', 'none', '--no-healthcheck', 'busybox', 'sleep', '1000'],
    ]);
    await daemon.until([...STATUS, 'slow'], /^unhealthy [2-9]/);
    const log = await daemon.docker([
      'inspect',
      '-f',
      '{{(index .State.Health.Log 0).ExitCode}} {{(index .State.Health.Log 0).Output}}',
      'slow',
    ]);
    const left = await daemon.docker(['top', 'slow', '-o', 'pid,args']);
    const unchecked = await daemon.docker(['inspect', '-f', '{{.State.Health}}', 'none']);

    t.is(log.stdout, '-1 Health check exceeded timeout (300ms)\n');
    t.true(left.stdout.split('\n').filter((line) => line.includes('sleep 500')).length <= 1, left.stdout);
    t.is(unchecked.stdout, '<nil>\n');
  });

  test.serial(
    `${wall}: the checks go on without a daemon, stand still with the container, and end with it`,
    async (t) => {
      await using daemon = await TestDaemon.start(t);
      await daemon.load();
      await run(daemon, 'aa', 'echo >>/probes');
      await daemon.until([...STATUS, 'aa'], /^healthy/);
      const count = async (): Promise<number> =>
        Number((await daemon.docker(['exec', 'aa', 'sh', '-c', 'wc -l </probes'])).stdout);

      const before = await count();
      await daemon.kill();
      await delay(1_500); // Nobody is there to ask for a probe.
      await daemon.start();
      const after = await count();
      const status = await daemon.until([...STATUS, 'aa'], /^healthy/);
      await daemon.docker(['pause', 'aa']);
      await delay(600);
      await daemon.docker(['unpause', 'aa']);
      const stillHealthy = await daemon.docker([...STATUS, 'aa']);
      await daemon.docker(['stop', '-t', '0', 'aa']);
      const ended = await daemon.docker([...STATUS, 'aa']);

      t.true(after - before >= 3, `${before} ${after}`);
      t.is(status, 'healthy 0\n');
      t.is(stillHealthy.stdout, 'healthy 0\n');
      t.regex(ended.stdout, /^unhealthy/);
    },
  );
}
