import test from 'ava';
import { planResources } from '../../src/core/resources.ts';

const MIB = 1024 * 1024;
const host = { cpus: 4, memoryBytes: 8192 * MIB };
const defaults = { vcpus: 2, memoryBytes: 1024 * MIB };

test('without a wish the defaults make the machine, never more than the host has', (t) => {
  t.deepEqual(planResources({}, host, defaults), {
    cpuLimit: undefined,
    memoryLimitBytes: undefined,
    vcpus: 2,
    machineMemoryBytes: 1024 * MIB,
  });
  t.is(planResources({}, { ...host, cpus: 1 }, defaults).vcpus, 1);
});

test('a fraction of CPUs is rounded up for the machine and kept for the limit', (t) => {
  const plan = planResources({ nanoCpus: 1.5e9, memory: 256 * MIB }, host, defaults);

  t.is(plan.cpuLimit, 1.5);
  t.is(plan.vcpus, 2);
  t.is(plan.memoryLimitBytes, 256 * MIB);
  t.is(plan.machineMemoryBytes, 384 * MIB);
});

test('quota and period are CPUs too, but not both ways at once', (t) => {
  t.is(planResources({ cpuQuota: 50_000, cpuPeriod: 100_000 }, host, defaults).cpuLimit, 0.5);
  t.throws(() => planResources({ nanoCpus: 1e9, cpuQuota: 50_000 }, host, defaults), {
    message: /Conflicting options/,
  });
});

test('refusals name what was asked and what there is', (t) => {
  t.throws(() => planResources({ nanoCpus: 5e9 }, host, defaults), { message: /0\.01 to 4\.00.*asked: 5/ });
  t.throws(() => planResources({ memory: 1 }, host, defaults), { message: /minimum memory limit allowed is 6MB/ });
  t.throws(() => planResources({ memory: 9000 * MIB }, host, defaults), {
    message: /9000 MiB is more than this host's 8192 MiB/,
  });
});
