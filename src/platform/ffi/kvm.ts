import { EngineError } from '../../core/errors.ts';
import { nativeLibrary } from './library.ts';

/** A handle of libbulkhead. */
export type NativeHandle = number | bigint;

type Numbers = Record<string, number | bigint>;
export type NativeRegisters = Numbers;
export type NativeSystemRegisters = Record<string, number | bigint | Numbers | (number | bigint)[]>;

export interface NativeCpuidEntry {
  readonly function: number;
  readonly index: number;
  /** `KVM_CPUID_FLAG_*`; bit 0: the index matters. */
  readonly flags: number;
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}

export interface NativeExit {
  /** `BH_EXIT_*` of bulkhead.h. */
  readonly kind: number;
  readonly address: bigint;
  readonly reason: bigint;
  readonly accessBytes: number;
  readonly hostCpu: number;
  /** How many bytes the guest's read waits for, or the length of `data`. */
  readonly dataBytes: number;
  readonly data: Buffer;
}

/** A port string instruction moves at most one page; every other exit less. */
const exitDataLimitBytes = 4096;
/** `KVM_MAX_CPUID_ENTRIES`. */
const cpuidEntryLimit = 256;
const cpuidFields = ['function', 'index', 'flags', 'eax', 'ebx', 'ecx', 'edx'] as const;

function createdHandle(name: 'bh_kvm_open' | 'bh_vm_create' | 'bh_vcpu_create', ...args: unknown[]): NativeHandle {
  const slot: [NativeHandle | null] = [null];
  nativeLibrary().call(name, ...args, slot);
  if (slot[0] === null) throw new EngineError('internal', `${name} gave no handle`);
  return slot[0];
}

export const openKvm = (path: string | null): NativeHandle => createdHandle('bh_kvm_open', path);
export const createVm = (kvm: NativeHandle): NativeHandle => createdHandle('bh_vm_create', kvm);
export const createVcpu = (vm: NativeHandle, index: number): NativeHandle => createdHandle('bh_vcpu_create', vm, index);
export const closeHandle = (handle: NativeHandle): void => void nativeLibrary().call('bh_close', handle);
export const kvmApiVersion = (kvm: NativeHandle): number => nativeLibrary().call('bh_kvm_api_version', kvm);
export const kvmCapability = (kvm: NativeHandle, number: number): number =>
  nativeLibrary().call('bh_kvm_capability', kvm, number);

export function supportedCpuid(kvm: NativeHandle): NativeCpuidEntry[] {
  const words = new Uint32Array(cpuidEntryLimit * cpuidFields.length);
  const count = nativeLibrary().call('bh_kvm_supported_cpuid', kvm, words, cpuidEntryLimit);
  return Array.from({ length: count }, (_, entry) => {
    const word = (field: number): number => words[entry * cpuidFields.length + field] ?? 0;
    return {
      function: word(0),
      index: word(1),
      flags: word(2),
      eax: word(3),
      ebx: word(4),
      ecx: word(5),
      edx: word(6),
    };
  });
}

export function setCpuid(vcpu: NativeHandle, entries: readonly NativeCpuidEntry[]): void {
  const words = Uint32Array.from(entries.flatMap((entry) => cpuidFields.map((field) => entry[field])));
  nativeLibrary().call('bh_vcpu_set_cpuid', vcpu, words, entries.length);
}

export const createIrqchip = (vm: NativeHandle): void => void nativeLibrary().call('bh_vm_create_irqchip', vm);
export const addMemory = (vm: NativeHandle, guestAddress: bigint, sizeBytes: number): number =>
  nativeLibrary().call('bh_vm_add_memory', vm, guestAddress, sizeBytes);
export const writeMemory = (vm: NativeHandle, guestAddress: bigint, bytes: Uint8Array): void =>
  void nativeLibrary().call('bh_vm_write', vm, guestAddress, bytes, bytes.byteLength);
export const readMemory = (vm: NativeHandle, guestAddress: bigint, target: Uint8Array): void =>
  void nativeLibrary().call('bh_vm_read', vm, guestAddress, target, target.byteLength);

export function getRegisters(vcpu: NativeHandle): NativeRegisters {
  const registers: NativeRegisters = {};
  nativeLibrary().call('bh_vcpu_get_registers', vcpu, registers);
  return registers;
}

export const setRegisters = (vcpu: NativeHandle, registers: NativeRegisters): void =>
  void nativeLibrary().call('bh_vcpu_set_registers', vcpu, registers);

export function getSystemRegisters(vcpu: NativeHandle): NativeSystemRegisters {
  const registers: NativeSystemRegisters = {};
  nativeLibrary().call('bh_vcpu_get_system_registers', vcpu, registers);
  return registers;
}

export const setSystemRegisters = (vcpu: NativeHandle, registers: NativeSystemRegisters): void =>
  void nativeLibrary().call('bh_vcpu_set_system_registers', vcpu, registers);

export const beginRun = (vcpu: NativeHandle): void => void nativeLibrary().call('bh_vcpu_begin', vcpu);
export const vcpuEventDescriptor = (vcpu: NativeHandle): number => nativeLibrary().call('bh_vcpu_event_fd', vcpu);
export const kickVcpu = (vcpu: NativeHandle): boolean => nativeLibrary().call('bh_vcpu_kick', vcpu) === 1;
export const answerRead = (vcpu: NativeHandle, bytes: Uint8Array): void =>
  void nativeLibrary().call('bh_vcpu_answer', vcpu, bytes, bytes.byteLength);

/** The exit of the run that ended. */
export function finishRun(vcpu: NativeHandle): NativeExit {
  const fields: Numbers = {};
  const data = Buffer.alloc(exitDataLimitBytes);
  nativeLibrary().call('bh_vcpu_finish', vcpu, 0, fields, data, data.length);
  const dataBytes = Number(fields['data_bytes'] ?? 0);
  return {
    kind: Number(fields['kind'] ?? 0),
    address: BigInt(fields['address'] ?? 0),
    reason: BigInt(fields['reason'] ?? 0),
    accessBytes: Number(fields['access_bytes'] ?? 0),
    hostCpu: Number(fields['host_cpu'] ?? 0),
    dataBytes,
    data: data.subarray(0, dataBytes),
  };
}
