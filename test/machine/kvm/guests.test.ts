import { readFile } from 'node:fs/promises';
import test from 'ava';
import { enterLongMode, Kvm } from '../../../src/machine/kvm/index.ts';
import { startRealModeGuest } from './tiny-guests.ts';

test('KVM speaks version 12 and tells its capabilities', (t) => {
  using kvm = Kvm.open();

  t.is(kvm.apiVersion, 12);
  t.true(kvm.capability(3) > 0, 'KVM_CAP_USER_MEMORY');
  t.is(kvm.capability(0xffff), 0, 'a capability that does not exist');
  t.true(kvm.supportedCpuid().some((leaf) => leaf.function === 1));
});

test('a real-mode guest sums two registers, writes the digit and a newline to a port, and halts', async (t) => {
  using guest = startRealModeGuest([
    ...[0xba, 0xf8, 0x03], // mov dx, 0x3f8
    ...[0x00, 0xd8], // add al, bl
    ...[0x04, 0x30], // add al, '0'
    ...[0xee, 0xb0, 0x0a, 0xee, 0xf4], // out dx, al; mov al, '\n'; out dx, al; hlt
  ]);
  guest.vcpu.setRegisters({ rax: 2n, rbx: 2n });

  t.deepEqual(await guest.vcpu.run(), { kind: 'io-out', port: 0x3f8, accessBytes: 1, data: Buffer.from('4') });
  t.deepEqual(await guest.vcpu.run(), { kind: 'io-out', port: 0x3f8, accessBytes: 1, data: Buffer.from('\n') });
  t.deepEqual(await guest.vcpu.run(), { kind: 'hlt' });
  t.is(guest.vcpu.registers.rip, 0x100cn);
});

test('a port read gets the answer that it is given', async (t) => {
  using guest = startRealModeGuest([0xe5, 0x20, 0xf4]); // in ax, 0x20; hlt

  t.deepEqual(await guest.vcpu.run(), { kind: 'io-in', port: 0x20, accessBytes: 2, dataBytes: 2 });
  guest.vcpu.answer(Uint8Array.of(0x34, 0x12));

  t.deepEqual(await guest.vcpu.run(), { kind: 'hlt' });
  t.is(guest.vcpu.registers.rax & 0xffffn, 0x1234n);
});

test('a string output moves many bytes in one exit', async (t) => {
  using guest = startRealModeGuest([
    ...[0xba, 0x10, 0x00, 0xbe, 0x00, 0x20, 0xb9, 0x05, 0x00], // mov dx, 0x10; mov si, 0x2000; mov cx, 5
    ...[0xf3, 0x6e, 0xf4], // rep outsb; hlt
  ]);
  guest.vm.write(0x2000n, Buffer.from('hello'));
  const received: Buffer[] = [];

  for (let exit = await guest.vcpu.run(); exit.kind === 'io-out'; exit = await guest.vcpu.run())
    received.push(exit.data);

  t.is(Buffer.concat(received).toString(), 'hello');
});

test('an access without memory behind it is an MMIO exit', async (t) => {
  using guest = startRealModeGuest(
    [
      ...[0xc6, 0x06, 0x00, 0x80, 0x42], // mov byte [0x8000], 0x42
      ...[0xa0, 0x01, 0x80, 0xf4], // mov al, [0x8001]; hlt
    ],
    { memoryBytes: 0x8000 },
  );

  t.deepEqual(await guest.vcpu.run(), { kind: 'mmio-write', address: 0x8000n, data: Buffer.of(0x42) });
  t.deepEqual(await guest.vcpu.run(), { kind: 'mmio-read', address: 0x8001n, dataBytes: 1 });
  guest.vcpu.answer(Uint8Array.of(0x77));

  t.deepEqual(await guest.vcpu.run(), { kind: 'hlt' });
  t.is(guest.vcpu.registers.rax & 0xffn, 0x77n);
});

test('what the guest writes to its memory is read back', async (t) => {
  using guest = startRealModeGuest([0xc7, 0x06, 0x00, 0x30, 0xef, 0xbe, 0xf4]); // mov word [0x3000], 0xbeef; hlt

  await guest.vcpu.run();

  t.deepEqual(guest.vm.read(0x3000n, 2), Buffer.of(0xef, 0xbe));
});

test('a long-mode guest with its own page tables reads CPUID, writes to a port and halts', async (t) => {
  using kvm = Kvm.open();
  using vm = kvm.createVm();
  vm.addMemory({ guestAddress: 0n, sizeBytes: 0x10000 });
  const code = [
    ...[0x48, 0xb8, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11], // mov rax, 0x1122334455667788
    ...[0x49, 0x89, 0xc0], // mov r8, rax
    ...[0x31, 0xc0, 0x31, 0xc9, 0x0f, 0xa2], // xor eax, eax; xor ecx, ecx; cpuid
    ...[0x89, 0xd8, 0xe7, 0x10, 0xf4], // mov eax, ebx; out 0x10, eax; hlt
  ];
  vm.write(0x8000n, Uint8Array.from(code));
  using vcpu = vm.createVcpu(0);
  const cpuid = kvm.supportedCpuid();
  vcpu.setCpuid(cpuid);
  enterLongMode(vm, vcpu);
  vcpu.setRegisters({ rip: 0x8000n, rflags: 2n });

  const exit = await vcpu.run();

  const vendorWord = Buffer.alloc(4);
  vendorWord.writeUInt32LE(cpuid.find((leaf) => leaf.function === 0)?.ebx ?? 0);
  t.deepEqual(exit, { kind: 'io-out', port: 0x10, accessBytes: 4, data: vendorWord });
  t.is(vcpu.registers.r8, 0x1122334455667788n);
  t.deepEqual(await vcpu.run(), { kind: 'hlt' });
});

test('an exception without a handler in long mode is a shutdown', async (t) => {
  using kvm = Kvm.open();
  using vm = kvm.createVm();
  vm.addMemory({ guestAddress: 0n, sizeBytes: 0x10000 });
  vm.write(0x8000n, Uint8Array.of(0x0f, 0x0b)); // ud2
  using vcpu = vm.createVcpu(0);
  enterLongMode(vm, vcpu);
  vcpu.setRegisters({ rip: 0x8000n, rflags: 2n });

  t.deepEqual(await vcpu.run(), { kind: 'shutdown' });
});

test('a kick ends a guest in an endless loop, which can then go on', async (t) => {
  using guest = startRealModeGuest([0xeb, 0xfe]); // jmp $
  const run = guest.vcpu.run();
  await new Promise((resolve) => setImmediate(resolve));

  t.true(guest.vcpu.kick());
  t.deepEqual(await run, { kind: 'interrupted' });

  t.false(guest.vcpu.kick(), 'no run is in progress');
  guest.vm.write(0x1000n, Uint8Array.of(0xf4));
  t.deepEqual(await guest.vcpu.run(), { kind: 'hlt' });
});

test('an aborted signal ends a run', async (t) => {
  using guest = startRealModeGuest([0xeb, 0xfe]);

  t.deepEqual(await guest.vcpu.run({ signal: AbortSignal.timeout(20) }), { kind: 'interrupted' });
  await t.throwsAsync(guest.vcpu.run({ signal: AbortSignal.abort() }), { code: 'cancelled' });
});

test('more guests than the thread pool has threads run at once and leave the event loop free', async (t) => {
  using stack = new DisposableStack();
  const guests = Array.from({ length: 8 }, () => stack.use(startRealModeGuest([0xeb, 0xfe])));
  const stop = new AbortController();
  const running = new Set(guests);
  const runs = guests.map(async (guest) => {
    const exit = await guest.vcpu.run({ signal: stop.signal });
    running.delete(guest);
    return exit.kind;
  });

  await readFile('/proc/self/stat');

  t.is(running.size, 8, 'the file was read while all guests ran');
  stop.abort();
  t.deepEqual(new Set(await Promise.all(runs)), new Set(['interrupted']));
});
