import {
  addMemory,
  closeHandle,
  createIrqchip,
  createVcpu,
  readMemory,
  writeMemory,
  type NativeHandle,
} from '../../platform/ffi/kvm.ts';
import { EngineError } from '../../core/errors.ts';
import { Vcpu } from './vcpu.ts';

export interface MemorySpec {
  /** Guest-physical address, a multiple of 4096. */
  readonly guestAddress: bigint;
  /** A multiple of 4096, up to 1 TiB. The host gives a page when it is first touched. */
  readonly sizeBytes: number;
}

const readLimitBytes = 1 << 30;

/**
 * A virtual machine: an address space and its vCPUs. The library owns the memory; reads and writes copy, and are checked. There is no view
 * of guest memory as an ArrayBuffer: JavaScript could keep it beyond the machine's end, and then touch memory that is gone.
 */
export class Vm implements Disposable {
  readonly #handle: NativeHandle;
  readonly #vcpus = new Set<Vcpu>();
  #closed = false;

  private constructor(handle: NativeHandle) {
    this.#handle = handle;
  }

  get #live(): NativeHandle {
    if (this.#closed) throw new EngineError('wrong-state', `the virtual machine is disposed`);
    return this.#handle;
  }

  /** For `Kvm.createVm`. */
  static adopt(handle: NativeHandle): Vm {
    return new Vm(handle);
  }

  /** The kernel's PIC, IOAPIC and local APICs; before the first vCPU. A HLT then waits in the kernel, and no longer ends a run. */
  createIrqchip(): void {
    createIrqchip(this.#live);
  }

  /** Adds zeroed memory and gives the slot's number. Fails with `invalid-argument` if it overlaps a slot or is not aligned. */
  addMemory(spec: MemorySpec): number {
    if (!Number.isSafeInteger(spec.sizeBytes) || spec.sizeBytes <= 0 || spec.guestAddress < 0n) {
      const message = `memory at ${spec.guestAddress} of ${spec.sizeBytes} bytes: address and size must be whole and positive`;
      throw new EngineError('invalid-argument', message);
    }
    return addMemory(this.#live, spec.guestAddress, spec.sizeBytes);
  }

  /** Copies into guest memory. Fails with `invalid-argument` if the range is not within one slot. */
  write(guestAddress: bigint, bytes: Uint8Array): void {
    writeMemory(this.#live, guestAddress, bytes);
  }

  /** Copies out of guest memory. Fails with `invalid-argument` if the range is not within one slot. */
  read(guestAddress: bigint, sizeBytes: number): Buffer {
    if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0 || sizeBytes > readLimitBytes) {
      throw new EngineError(
        'invalid-argument',
        `cannot read ${sizeBytes} bytes of guest memory: at most ${readLimitBytes}`,
      );
    }
    const target = Buffer.alloc(sizeBytes);
    readMemory(this.#live, guestAddress, target);
    return target;
  }

  /** A vCPU in the state of a processor after reset. `index` is also its APIC id. */
  createVcpu(index: number): Vcpu {
    if (!Number.isInteger(index) || index < 0 || index > 0xffff) {
      throw new EngineError('invalid-argument', `vCPU ${index}: the index must be a whole number from 0 to 65535`);
    }
    const vcpu = Vcpu.adopt(createVcpu(this.#live, index), index, () => this.#vcpus.delete(vcpu));
    this.#vcpus.add(vcpu);
    return vcpu;
  }

  /** Disposes the vCPUs first, which ends their runs. */
  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const vcpu of [...this.#vcpus]) vcpu[Symbol.dispose]();
    closeHandle(this.#handle);
  }
}
