import { EngineError } from '../../core/errors.ts';
import {
  closeHandle,
  createVm,
  kvmApiVersion,
  kvmCapability,
  openKvm,
  supportedCpuid,
  type NativeCpuidEntry,
  type NativeHandle,
} from '../../platform/ffi/kvm.ts';
import { Vm } from './vm.ts';

/** One CPUID leaf as `KVM_GET_SUPPORTED_CPUID` gives it. */
export type CpuidEntry = NativeCpuidEntry;

/**
 * The host's KVM: real hardware virtualization from TypeScript, for probes, tests and users of the library. The daemon's own guests run in
 * processes of their own and never through this class.
 *
 * Needs read and write access to /dev/kvm. Objects are released in any order: a machine's memory stays until its vCPUs are disposed.
 *
 * @example A guest of three instructions that writes 5 to port 0x10 (Intel SDM vol. 2 has the encodings):
 * ```ts
 * using kvm = Kvm.open();
 * using vm = kvm.createVm();
 * vm.addMemory({ guestAddress: 0x1000n, sizeBytes: 4096 });
 * vm.write(0x1000n, Uint8Array.of(0xb0, 0x05, 0xe6, 0x10, 0xf4)); // mov al, 5; out 0x10, al; hlt
 * using vcpu = vm.createVcpu(0);
 * const system = vcpu.systemRegisters;
 * vcpu.setSystemRegisters({ cs: { ...system.cs, base: 0n, selector: 0 } }); // real mode, from address 0
 * vcpu.setRegisters({ rip: 0x1000n, rflags: 2n }); // bit 1 of rflags is always set
 * const exit = await vcpu.run(); // { kind: 'io-out', port: 0x10, accessBytes: 1, data: <Buffer 05> }
 * ```
 */
export class Kvm implements Disposable {
  readonly #handle: NativeHandle;
  #closed = false;

  private constructor(handle: NativeHandle) {
    this.#handle = handle;
  }

  get #live(): NativeHandle {
    if (this.#closed) throw new EngineError('wrong-state', `the KVM device is disposed`);
    return this.#handle;
  }

  /** Opens `path`, /dev/kvm unless told otherwise. Fails with `not-found` or `forbidden`, errno in the details. */
  static open(path = '/dev/kvm'): Kvm {
    return new Kvm(openKvm(path));
  }

  /** 12 on every Linux since 2.6.22; refuse to work with another. */
  get apiVersion(): number {
    return kvmApiVersion(this.#live);
  }

  /** What the kernel answers for the capability number `KVM_CAP_*` of linux/kvm.h: 0 if it lacks it, else 1 or a limit. */
  capability(number: number): number {
    return kvmCapability(this.#live, number);
  }

  /** All CPUID leaves that a guest can have on this host; hand them, changed or not, to `vcpu.setCpuid`. */
  supportedCpuid(): CpuidEntry[] {
    return supportedCpuid(this.#live);
  }

  /** A machine without memory and vCPUs. */
  createVm(): Vm {
    return Vm.adopt(createVm(this.#live));
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    closeHandle(this.#handle);
  }
}
