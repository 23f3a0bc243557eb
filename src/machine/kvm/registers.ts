import type { NativeRegisters, NativeSystemRegisters } from '../../platform/ffi/kvm.ts';

export const registerNames = [
  ...(['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rsp', 'rbp'] as const),
  ...(['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15', 'rip', 'rflags'] as const),
] as const;
export type RegisterName = (typeof registerNames)[number];

/** General registers, 64 bits each. */
export type Registers = Record<RegisterName, bigint>;

/** A segment register with its hidden part. Intel SDM vol. 3, 3.4. */
export interface Segment {
  base: bigint;
  /** Last valid offset, in bytes whatever the granularity. */
  limit: number;
  selector: number;
  /** Descriptor type, 4 bits: 11 is code (execute, read, accessed), 3 is data (read, write, accessed). */
  kind: number;
  present: boolean;
  /** 0 is the kernel's, 3 the user's. */
  privilege: number;
  /** Operands have 32 bits; false in 64-bit code. */
  defaultSize: boolean;
  /** False for system segments (TSS, LDT). */
  codeOrData: boolean;
  /** 64-bit code. */
  longMode: boolean;
  /** The descriptor counts its limit in pages. */
  granularity: boolean;
  available: boolean;
  unusable: boolean;
}

export interface DescriptorTable {
  base: bigint;
  /** Last valid offset in bytes. */
  limit: number;
}

export const segmentNames = ['cs', 'ds', 'es', 'fs', 'gs', 'ss', 'tr', 'ldt'] as const;
export type SegmentName = (typeof segmentNames)[number];
const controlNames = ['cr0', 'cr2', 'cr3', 'cr4', 'cr8', 'efer'] as const;

/** System registers of a vCPU. */
export type SystemRegisters = Record<SegmentName, Segment> &
  Record<(typeof controlNames)[number], bigint> & {
    gdt: DescriptorTable;
    idt: DescriptorTable;
    apicBase: bigint;
    /** Interrupts that wait to be delivered: 4 words, one bit a vector. */
    interruptBitmap: readonly bigint[];
  };

type Fields = Readonly<Record<string, unknown>>;

function fieldsOf(value: unknown): Fields {
  return typeof value === 'object' && value !== null ? (value as Fields) : {};
}

function wordOf(value: unknown): bigint {
  return typeof value === 'number' || typeof value === 'bigint' ? BigInt(value) : 0n;
}

export function decodeRegisters(native: NativeRegisters): Registers {
  return Object.fromEntries(registerNames.map((name) => [name, wordOf(native[name])])) as Registers;
}

function decodeSegment(value: unknown): Segment {
  const native = fieldsOf(value);
  return {
    base: wordOf(native['base']),
    limit: Number(native['limit']),
    selector: Number(native['selector']),
    kind: Number(native['kind']),
    present: native['present'] !== 0,
    privilege: Number(native['privilege']),
    defaultSize: native['default_size'] !== 0,
    codeOrData: native['code_or_data'] !== 0,
    longMode: native['long_mode'] !== 0,
    granularity: native['granularity'] !== 0,
    available: native['available'] !== 0,
    unusable: native['unusable'] !== 0,
  };
}

function encodeSegment(segment: Segment): Record<string, number | bigint> {
  return {
    base: segment.base,
    limit: segment.limit,
    selector: segment.selector,
    kind: segment.kind,
    present: Number(segment.present),
    privilege: segment.privilege,
    default_size: Number(segment.defaultSize),
    code_or_data: Number(segment.codeOrData),
    long_mode: Number(segment.longMode),
    granularity: Number(segment.granularity),
    available: Number(segment.available),
    unusable: Number(segment.unusable),
    padding: 0,
  };
}

function decodeTable(value: unknown): DescriptorTable {
  const native = fieldsOf(value);
  return { base: wordOf(native['base']), limit: Number(native['limit']) };
}

export function decodeSystemRegisters(native: NativeSystemRegisters): SystemRegisters {
  const bitmap = native['interrupt_bitmap'];
  return {
    ...(Object.fromEntries(segmentNames.map((name) => [name, decodeSegment(native[name])])) as Record<
      SegmentName,
      Segment
    >),
    ...(Object.fromEntries(controlNames.map((name) => [name, wordOf(native[name])])) as Record<
      (typeof controlNames)[number],
      bigint
    >),
    gdt: decodeTable(native['gdt']),
    idt: decodeTable(native['idt']),
    apicBase: wordOf(native['apic_base']),
    interruptBitmap: Array.isArray(bitmap) ? bitmap.map(wordOf) : [0n, 0n, 0n, 0n],
  };
}

export function encodeSystemRegisters(registers: SystemRegisters): NativeSystemRegisters {
  const table = ({ base, limit }: DescriptorTable) =>
    ({ base, limit, padding: [0, 0, 0] }) as unknown as Record<string, number>;
  return {
    ...Object.fromEntries(segmentNames.map((name) => [name, encodeSegment(registers[name])])),
    ...Object.fromEntries(controlNames.map((name) => [name, registers[name]])),
    gdt: table(registers.gdt),
    idt: table(registers.idt),
    apic_base: registers.apicBase,
    interrupt_bitmap: [...registers.interruptBitmap],
  };
}
