import type { CpuidEntry } from './kvm.ts';

/** An instruction that stock Linux kernels execute in ring 0 early, and that some hypervisors' emulators do not know. */
export interface KernelInstruction {
  readonly name: string;
  /** What in a stock kernel needs it. */
  readonly usedBy: string;
  /** Whether a processor with this CPUID has it. A kernel does not use what CPUID does not have. */
  readonly exists: (features: GuestFeatures) => boolean;
  /**
   * The instruction and what it needs. On entry: long mode, ring 0, a stack; RDI points to 4096 zeroed bytes, aligned to 64; the handler of
   * vector 3 is an `iretq`. Encodings: Intel SDM vol. 2.
   */
  readonly code: readonly number[];
}

export interface GuestFeatures {
  readonly cmpxchg16b: boolean;
  readonly xsave: boolean;
  readonly bmi2: boolean;
}

/** Feature bits: Intel SDM vol. 2, CPUID: leaf 1 ECX 13 and 26, leaf 7 EBX 8. */
export function readFeatures(entries: readonly CpuidEntry[]): GuestFeatures {
  const leaf = (number: number): CpuidEntry | undefined =>
    entries.find((entry) => entry.function === number && entry.index === 0);
  const has = (word: number | undefined, bit: number): boolean => (((word ?? 0) >>> bit) & 1) === 1;
  return {
    cmpxchg16b: has(leaf(1)?.ecx, 13),
    xsave: has(leaf(1)?.ecx, 26),
    bmi2: has(leaf(7)?.ebx, 8),
  };
}

export const kernelInstructions: readonly KernelInstruction[] = [
  {
    name: 'lock cmpxchg16b',
    usedBy: 'the memory allocator (SLUB)',
    exists: ({ cmpxchg16b }) => cmpxchg16b,
    code: [
      ...[0x31, 0xc0, 0x31, 0xd2, 0x31, 0xdb, 0x31, 0xc9], // xor eax, eax; xor edx, edx; xor ebx, ebx; xor ecx, ecx
      ...[0xf0, 0x48, 0x0f, 0xc7, 0x0f], // lock cmpxchg16b [rdi]
    ],
  },
  {
    name: 'xsave64, xrstor64',
    usedBy: 'the saving of floating-point state at each task switch',
    exists: ({ xsave }) => xsave,
    code: [
      ...[0xb8, 0x03, 0x00, 0x00, 0x00, 0x31, 0xd2], // mov eax, 3 (x87, SSE); xor edx, edx
      ...[0x48, 0x0f, 0xae, 0x27], // xsave64 [rdi]
      ...[0x48, 0x0f, 0xae, 0x2f], // xrstor64 [rdi]
    ],
  },
  {
    name: 'shlx',
    usedBy: 'the decompressor of a kernel built for recent processors',
    exists: ({ bmi2 }) => bmi2,
    code: [
      ...[0xb9, 0x03, 0x00, 0x00, 0x00, 0xb8, 0x01, 0x00, 0x00, 0x00], // mov ecx, 3; mov eax, 1
      ...[0xc4, 0xe2, 0xf1, 0xf7, 0xd8], // shlx rbx, rax, rcx
    ],
  },
  {
    name: 'int3, iretq',
    usedBy: 'the self-test of code patching, before the first process',
    exists: () => true,
    code: [0xcc],
  },
];
