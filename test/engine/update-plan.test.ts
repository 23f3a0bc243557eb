import test from 'ava';
import { EngineError } from '../../src/core/errors.ts';
import type { ContainerRecord } from '../../src/engine/container-record.ts';
import { planUpdate } from '../../src/engine/update-plan.ts';
import type { HostConfig } from '../../src/wire/docker/container-config.ts';
import type { ContainerUpdateRequest } from '../../src/wire/docker/container-update.ts';

const MIB = 1024 * 1024;
const context = {
  host: { cpus: 4, memoryBytes: 4096 * MIB },
  machineDefaults: { vcpus: 2, memoryBytes: 1024 * MIB },
};

function container(hostConfig: HostConfig = {}, isRunning = true): ContainerRecord {
  return {
    id: 'ab'.repeat(32),
    name: 'box',
    createdAtMs: 1,
    imageId: '',
    imageReference: 'busybox',
    isolation: 'vm',
    config: {},
    hostConfig,
    command: ['true'],
    hostname: 'box',
    facts: { wall: 'vm', accelerator: 'tcg', driver: 'qemu', vcpus: 2, memoryBytes: 1024 * MIB },
    state: isRunning ? { status: 'running', pid: 7, startedAtMs: 1 } : { status: 'created' },
    restartCount: 0,
  };
}

const resourcesOf = (request: ContainerUpdateRequest, hostConfig?: HostConfig): unknown =>
  planUpdate(container(hostConfig), request, context).resources;

test('only what is named changes; zero and empty leave it as it is', (t) => {
  const zeros = { Memory: 0, NanoCpus: 0, CpuShares: 0, CpusetCpus: '', MemorySwap: 0, RestartPolicy: { Name: '' } };

  t.is(resourcesOf(zeros), undefined);
  t.deepEqual(resourcesOf({ ...zeros, NanoCpus: 1.5e9 }), { cpu: { quota: 150_000, period: 100_000 } });
  t.deepEqual(resourcesOf({ CpuShares: 512, CpusetCpus: '0' }), { cpu: { shares: 512, cpus: '0' } });
  t.deepEqual(resourcesOf({ Memory: 100 * MIB }), { memory: { limit: 100 * MIB, swap: 200 * MIB } });
  t.deepEqual(resourcesOf({ PidsLimit: 5 }), { pids: { limit: 5 } });
});

test('limits are taken away by -1, that of processes by 0 too', (t) => {
  t.deepEqual(resourcesOf({ CpuQuota: -1 }, { CpuQuota: 50_000 }), { cpu: { quota: -1 } });
  t.deepEqual(resourcesOf({ PidsLimit: 0 }, { PidsLimit: 5 }), { pids: { limit: -1 } });
  t.deepEqual(resourcesOf({ PidsLimit: -1 }, { PidsLimit: 5 }), { pids: { limit: -1 } });
});

test('options that contradict what is set are refused with Docker’s words', (t) => {
  const message = (request: ContainerUpdateRequest, hostConfig: HostConfig): string =>
    t.throws(() => planUpdate(container(hostConfig), request, context), { instanceOf: EngineError }).message;

  t.regex(
    message({ CpuQuota: 1000 }, { NanoCpus: 1e9 }),
    /CPU Quota cannot be updated as NanoCPUs has already been set/,
  );
  t.regex(message({ NanoCpus: 1e9 }, { CpuPeriod: 1000 }), /Nano CPUs cannot be updated as CPU Period/);
  t.regex(message({ Memory: 200 * MIB }, { Memory: 100 * MIB, MemorySwap: 150 * MIB }), /already set memoryswap limit/);
  t.regex(message({ RestartPolicy: { Name: 'always' } }, { AutoRemove: true }), /AutoRemove is enabled/);
  t.regex(message({ NanoCpus: 8e9 }, {}), /there are only 4 CPUs available/);
});

test('a machine that runs keeps its virtual CPUs, the next one has what is asked for', (t) => {
  const request = { NanoCpus: 3e9, Memory: 512 * MIB };

  const running = planUpdate(container(), request, context).record;
  const stopped = planUpdate(container({}, false), request, context).record;

  t.like(running.facts, { vcpus: 2, memoryBytes: 512 * MIB });
  t.like(stopped.facts, { vcpus: 3, memoryBytes: 512 * MIB });
  t.like(running.hostConfig, request);
});
