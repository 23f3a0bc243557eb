import test from 'ava';
import { encodeState } from '../../src/api/codecs/container-state.ts';
import { encodeStats } from '../../src/api/codecs/stats.ts';
import { statusText } from '../../src/api/codecs/status-text.ts';
import { describeStatsRow } from '../../src/cli/render/stats-rows.ts';
import { statsSchema } from '../../src/client/answers.ts';
import { containerStatsSchema, type ContainerStats } from '../../src/wire/shim-usage.ts';

const MIB = 1024 * 1024;
const view = { id: 'ab'.repeat(32), name: 'box' };

function sample(changes: { readonly cpuNs: number; readonly ofAllCpusNs: number }): ContainerStats {
  return containerStatsSchema.parse({
    readAtNs: 1_500_000_000,
    cpu: { totalNs: changes.cpuNs, ofAllCpusNs: changes.ofAllCpusNs, onlineCpus: 2 },
    memory: { usageBytes: 30 * MIB, limitBytes: 100 * MIB, details: { inactive_file: 10 * MIB } },
    pids: { current: 3, limit: 40 },
    blockIo: [{ major: 254, minor: 0, readBytes: 1000, writtenBytes: 2000, reads: 1, writes: 2 }],
    networks: { eth0: { rxBytes: 10, rxPackets: 1, txBytes: 20, txPackets: 2 } },
    machine: { pssBytes: 200 * MIB, cpuNs: 5 },
  });
}

test('a sample is told with Docker’s names, and the one before it beside it', (t) => {
  const told = encodeStats(view, sample({ cpuNs: 3e9, ofAllCpusNs: 12e9 }), sample({ cpuNs: 2e9, ofAllCpusNs: 10e9 }));

  t.like(told, {
    name: '/box',
    read: '1970-01-01T00:00:01.500000000Z',
    cpu_stats: { cpu_usage: { total_usage: 3e9 }, system_cpu_usage: 12e9, online_cpus: 2 },
    precpu_stats: { cpu_usage: { total_usage: 2e9 }, system_cpu_usage: 10e9 },
    memory_stats: { usage: 30 * MIB, limit: 100 * MIB, stats: { inactive_file: 10 * MIB } },
    pids_stats: { current: 3, limit: 40 },
    Bulkhead: { machine: { pssBytes: 200 * MIB, cpuNs: 5 } },
  });
  t.like(told['networks'], { eth0: { rx_bytes: 10, tx_bytes: 20 } });
});

test('what does not run is all zero, and has no networks', (t) => {
  const told = encodeStats(view, undefined, undefined);

  t.like(told, { name: '/box', pids_stats: {}, memory_stats: {}, read: '0001-01-01T00:00:00Z' });
  t.false('networks' in told);
});

test('the row of stats is computed as Docker’s client computes it', (t) => {
  const answer = statsSchema.parse(
    encodeStats(view, sample({ cpuNs: 3e9, ofAllCpusNs: 12e9 }), sample({ cpuNs: 2e9, ofAllCpusNs: 10e9 })),
  );

  t.deepEqual(describeStatsRow('box', answer, true), {
    BlockIO: '1kB / 2kB',
    CPUPerc: '100.00%',
    Container: 'box',
    ID: 'ab'.repeat(6),
    Machine: '200MiB',
    MemPerc: '20.00%',
    MemUsage: '20MiB / 100MiB',
    Name: 'box',
    NetIO: '10B / 20B',
    PIDs: '3',
  });
});

test('health is told by inspect and by the status of a running container', (t) => {
  const probe = { number: 4, startedAtNs: 1e15, endedAtNs: 1.5e15, exitCode: -1, output: 'late' };
  const running = { status: 'running', pid: 1, startedAtMs: 0 } as const;

  t.like(encodeState(running, { sequence: 4, status: 'unhealthy', failingStreak: 2, log: [probe] }), {
    Health: {
      Status: 'unhealthy',
      FailingStreak: 2,
      Log: [{ Start: '1970-01-12T13:46:40Z', End: '1970-01-18T08:40:00Z', ExitCode: -1, Output: 'late' }],
    },
  });
  t.is(statusText(running, 5_000, 'starting'), 'Up 5 seconds (health: starting)');
  t.is(statusText(running, 5_000, 'healthy'), 'Up 5 seconds (healthy)');
  t.is(statusText({ ...running, status: 'paused' }, 5_000, 'healthy'), 'Up 5 seconds (Paused)');
});
