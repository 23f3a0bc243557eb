import { readFileSync } from 'node:fs';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { spawnSync } from 'node:child_process';
import test from 'ava';
import { probeKvm } from '../../../src/machine/kvm/index.ts';

const hasHardwareVirtualization = /^flags\s*:.*\b(vmx|svm)\b/m.test(readFileSync('/proc/cpuinfo', 'utf8'));

(hasHardwareVirtualization ? test : test.skip)('with VT-x or AMD-V, KVM can run a kernel', async (t) => {
  const probe = await probeKvm();

  t.like(probe, { usable: true });
});

(hasHardwareVirtualization ? test.skip : test)(
  'KVM without VT-x and AMD-V is told apart, and the message says what to do',
  async (t) => {
    const probe = await probeKvm();

    t.like(probe, { usable: false, reason: 'cannot-run-kernel', details: { vendor: 'pvm' } });
    t.regex('message' in probe ? probe.message : '', /lock cmpxchg16b.*int3.*--accelerator tcg/);
  },
);

test('the probe takes less than 50 ms once the library is loaded', async (t) => {
  await probeKvm();
  const durations: number[] = [];

  for (let round = 0; round < 5; round += 1) {
    const begin = performance.now();
    await probeKvm();
    durations.push(performance.now() - begin);
  }

  t.true(Math.min(...durations) < 50, `took ${durations.map((duration) => duration.toFixed(1)).join(', ')} ms`);
});

test('a missing device is told with its remedy', async (t) => {
  const probe = await probeKvm({ path: '/dev/no-kvm' });

  t.like(probe, { usable: false, reason: 'no-device' });
  t.regex('message' in probe ? probe.message : '', /modprobe/);
});

test('a device that the user may not open is told with the group to join', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'bulkhead-probe-'));
  t.teardown(() => rm(directory, { recursive: true }));
  const device = join(directory, 'kvm');
  await writeFile(device, '');
  await chmod(device, 0o660);
  await chmod(directory, 0o755);
  const script = `
    import { probeKvm } from ${JSON.stringify(new URL('../../../src/machine/kvm/index.ts', import.meta.url).href)};
    await probeKvm({ path: '/dev/no-kvm' }); // loads the library, which that user may not be able to read
    process.setgroups([]);
    process.setgid(65534);
    process.setuid(65534);
    console.log(JSON.stringify(await probeKvm({ path: ${JSON.stringify(device)} })));`;

  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '--eval', script], {
    encoding: 'utf8',
  });

  t.is(stderr, '');
  t.like(JSON.parse(stdout), { usable: false, reason: 'no-permission' });
  t.regex(stdout, /add the user to group root \(usermod -aG root USER\)/);
});
