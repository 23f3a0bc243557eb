import { readdirSync, readlinkSync } from 'node:fs';
import test from 'ava';
import { Kvm } from '../../../src/machine/kvm/index.ts';
import { startRealModeGuest } from './tiny-guests.ts';

test('memory slots do not overlap, and have whole pages', (t) => {
  using kvm = Kvm.open();
  using vm = kvm.createVm();
  t.is(vm.addMemory({ guestAddress: 0x10000n, sizeBytes: 0x2000 }), 0);

  t.throws(() => vm.addMemory({ guestAddress: 0x11000n, sizeBytes: 0x1000 }), {
    message: /0x11000 .*overlaps .*0x10000/,
  });
  t.throws(() => vm.addMemory({ guestAddress: 0xf000n, sizeBytes: 0x10000 }), { code: 'invalid-argument' });
  t.throws(() => vm.addMemory({ guestAddress: 0x20001n, sizeBytes: 0x1000 }), { message: /multiples of 4096/ });
  t.throws(() => vm.addMemory({ guestAddress: 0x20000n, sizeBytes: 100 }), { code: 'invalid-argument' });
  t.throws(() => vm.addMemory({ guestAddress: 0x20000n, sizeBytes: 0 }), { code: 'invalid-argument' });
  t.throws(() => vm.addMemory({ guestAddress: -4096n, sizeBytes: 4096 }), { code: 'invalid-argument' });
  t.throws(() => vm.addMemory({ guestAddress: (1n << 52n) - 4096n, sizeBytes: 8192 }), { code: 'invalid-argument' });
  t.is(vm.addMemory({ guestAddress: 0x12000n, sizeBytes: 0x1000 }), 1);
});

test('reads and writes stay within one memory slot', (t) => {
  using guest = startRealModeGuest([0xf4]);

  guest.vm.write(0xffffn, Uint8Array.of(1));
  t.throws(() => guest.vm.write(0xffffn, Uint8Array.of(1, 2)), { code: 'invalid-argument', message: /0xffff/ });
  t.throws(() => guest.vm.write(0x10000n, Uint8Array.of(1)), { code: 'invalid-argument' });
  t.throws(() => guest.vm.read(0xf000n, 0x1001), { code: 'invalid-argument' });
  t.throws(() => guest.vm.read((1n << 64n) - 1n, 2), { code: 'invalid-argument' });
  t.throws(() => guest.vm.read(0n, 2 ** 40), { code: 'invalid-argument' });
  t.is(guest.vm.read(0xffffn, 1)[0], 1);
});

test('a vCPU serves one call at a time', async (t) => {
  using guest = startRealModeGuest([0xeb, 0xfe]);
  const run = guest.vcpu.run();

  await t.throwsAsync(guest.vcpu.run(), { code: 'conflict', message: /vcpu 0/ });
  t.throws(() => guest.vcpu.registers, { code: 'conflict' });
  t.throws(() => guest.vcpu.setCpuid([]), { code: 'conflict' });

  guest.vcpu.kick();
  t.is((await run).kind, 'interrupted');
});

test('a read has to be answered, with as many bytes as it asked for, once', async (t) => {
  using guest = startRealModeGuest([0xe4, 0x20, 0xf4]); // in al, 0x20; hlt
  t.throws(() => guest.vcpu.answer(Uint8Array.of(1)), { code: 'wrong-state' });
  await guest.vcpu.run();

  t.throws(() => guest.vcpu.answer(Uint8Array.of(1, 2)), { message: /reads 1 bytes, the answer has 2/ });
  await t.throwsAsync(guest.vcpu.run(), { code: 'wrong-state', message: /waits for the answer/ });
  guest.vcpu.answer(Uint8Array.of(1));

  t.throws(() => guest.vcpu.answer(Uint8Array.of(1)), { code: 'wrong-state' });
  t.is((await guest.vcpu.run()).kind, 'hlt');
});

test('registers must be 64-bit unsigned numbers', (t) => {
  using guest = startRealModeGuest([0xf4]);

  t.throws(() => guest.vcpu.setRegisters({ rbx: -1n }), { code: 'invalid-argument', message: /rbx/ });
  t.throws(() => guest.vcpu.setRegisters({ rbx: 1n << 64n }), { code: 'invalid-argument' });
  guest.vcpu.setRegisters({ rbx: (1n << 64n) - 1n });
  t.is(guest.vcpu.registers.rbx, (1n << 64n) - 1n);
});

test('system registers that no processor has are refused', (t) => {
  using guest = startRealModeGuest([0xf4]);

  t.throws(() => guest.vcpu.setSystemRegisters({ cr0: 0x80000000n }), { code: 'invalid-argument' });
});

test('what is disposed says so', async (t) => {
  const kvm = Kvm.open();
  const vm = kvm.createVm();
  const vcpu = vm.createVcpu(0);
  t.throws(() => vm.createVcpu(0), { code: 'conflict' }, 'the index is taken');
  vm[Symbol.dispose]();
  kvm[Symbol.dispose]();
  kvm[Symbol.dispose]();

  t.throws(() => kvm.createVm(), { code: 'wrong-state', message: 'the KVM device is disposed' });
  t.throws(() => vm.read(0n, 1), { code: 'wrong-state', message: 'the virtual machine is disposed' });
  t.throws(() => vcpu.registers, { code: 'wrong-state', message: 'vCPU 0 is disposed' });
  await t.throwsAsync(vcpu.run(), { code: 'wrong-state' });
});

test('disposal during a run ends the run and rejects its promise', async (t) => {
  const guest = startRealModeGuest([0xeb, 0xfe]);
  const run = guest.vcpu.run();

  guest[Symbol.dispose]();

  await t.throwsAsync(run, { code: 'wrong-state', message: /disposed while it ran/ });
});

test.serial('a hundred machines leave no descriptor, thread or memory behind', async (t) => {
  const countKvm = (): number =>
    readdirSync('/proc/self/fd').filter((name) => {
      try {
        return /kvm|eventfd/.test(readlinkSync(`/proc/self/fd/${name}`));
      } catch {
        return false;
      }
    }).length;
  const countThreads = (): number => readdirSync('/proc/self/task').length;
  const before = { descriptors: countKvm(), threads: countThreads() };

  for (let round = 0; round < 100; round += 1) {
    using guest = startRealModeGuest([0xf4]);
    await guest.vcpu.run();
  }

  t.deepEqual({ descriptors: countKvm(), threads: countThreads() }, before);
});

test('a device that is not there is named', (t) => {
  t.throws(() => Kvm.open('/dev/no-kvm'), {
    code: 'not-found',
    message: 'cannot open /dev/no-kvm: No such file or directory (ENOENT)',
  });
});

test('a file that is no KVM device is refused', (t) => {
  using zero = Kvm.open('/dev/zero');

  t.throws(() => zero.createVm(), { message: /\/dev\/zero/ });
});
