import type { NativeExit } from '../../platform/ffi/kvm.ts';

/** Why a vCPU's run ended. Source of the meanings: https://docs.kernel.org/virt/kvm/api.html#the-kvm-run-structure */
export type VcpuExit =
  /** The guest wrote to a port. `data` holds one or more accesses of `accessBytes` each (a string instruction makes several). */
  | { readonly kind: 'io-out'; readonly port: number; readonly accessBytes: number; readonly data: Buffer }
  /** The guest reads a port: give `dataBytes` bytes with `vcpu.answer()` before the next run. */
  | { readonly kind: 'io-in'; readonly port: number; readonly accessBytes: number; readonly dataBytes: number }
  /** The guest wrote where it has no memory. */
  | { readonly kind: 'mmio-write'; readonly address: bigint; readonly data: Buffer }
  /** The guest reads where it has no memory: give `dataBytes` bytes with `vcpu.answer()` before the next run. */
  | { readonly kind: 'mmio-read'; readonly address: bigint; readonly dataBytes: number }
  /** The guest waits for an interrupt. Only without the kernel's interrupt controllers. */
  | { readonly kind: 'hlt' }
  /** A triple fault, or a shutdown by the guest. */
  | { readonly kind: 'shutdown' }
  /** A kick, by `vcpu.kick()` or an aborted signal. */
  | { readonly kind: 'interrupted' }
  /** The processor refused the guest's state. `reason` is the hardware's own number. */
  | { readonly kind: 'fail-entry'; readonly reason: bigint; readonly hostCpu: number }
  /**
   * KVM cannot go on. Suberror 1: an instruction that its emulator does not know, 2: an event during another's delivery,
   * 3: the same with an unexpected exit. `data` are the kernel's own words about it.
   */
  | { readonly kind: 'internal-error'; readonly suberror: number; readonly data: readonly bigint[] }
  /** The guest asked for a reset or power-off: `KVM_SYSTEM_EVENT_*`. */
  | { readonly kind: 'system-event'; readonly event: number }
  /** Any other exit, by the kernel's number `KVM_EXIT_*`. */
  | { readonly kind: 'other'; readonly reason: number };

/** Suberror of an `internal-error` exit: KVM's emulator met an instruction that it does not know. */
export const emulationSuberror = 1;

function wordsOf(data: Buffer): bigint[] {
  return Array.from({ length: Math.floor(data.length / 8) }, (_, index) => data.readBigUInt64LE(index * 8));
}

export function decodeExit(native: NativeExit): VcpuExit {
  const { accessBytes, address, data, dataBytes } = native;
  switch (native.kind) {
    case 0:
      return { kind: 'interrupted' };
    case 1:
      return { kind: 'io-out', port: Number(address), accessBytes, data };
    case 2:
      return { kind: 'io-in', port: Number(address), accessBytes, dataBytes };
    case 3:
      return { kind: 'mmio-read', address, dataBytes };
    case 4:
      return { kind: 'mmio-write', address, data };
    case 5:
      return { kind: 'hlt' };
    case 6:
      return { kind: 'shutdown' };
    case 7:
      return { kind: 'fail-entry', reason: native.reason, hostCpu: native.hostCpu };
    case 8:
      return { kind: 'internal-error', suberror: Number(native.reason), data: wordsOf(data) };
    case 9:
      return { kind: 'system-event', event: Number(native.reason) };
    default:
      return { kind: 'other', reason: Number(native.reason) };
  }
}
