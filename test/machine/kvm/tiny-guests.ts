import { Kvm, type Vcpu, type Vm } from '../../../src/machine/kvm/index.ts';

export interface TinyGuest extends Disposable {
  readonly kvm: Kvm;
  readonly vm: Vm;
  readonly vcpu: Vcpu;
}

/** A guest in 16-bit real mode with 64 KiB of memory at 0 that begins with `code` at 0x1000. */
export function startRealModeGuest(code: readonly number[], { memoryBytes = 0x10000 } = {}): TinyGuest {
  using stack = new DisposableStack();
  const kvm = stack.use(Kvm.open());
  const vm = stack.use(kvm.createVm());
  vm.addMemory({ guestAddress: 0n, sizeBytes: memoryBytes });
  vm.write(0x1000n, Uint8Array.from(code));
  const vcpu = stack.use(vm.createVcpu(0));
  const { cs, ds } = vcpu.systemRegisters;
  vcpu.setSystemRegisters({ cs: { ...cs, base: 0n, selector: 0 }, ds: { ...ds, base: 0n, selector: 0 } });
  vcpu.setRegisters({ rip: 0x1000n, rflags: 2n });
  const owned = stack.move();
  return { kvm, vm, vcpu, [Symbol.dispose]: () => owned.dispose() };
}
