import type { Segment, SystemRegisters } from './registers.ts';
import type { Vcpu } from './vcpu.ts';
import type { Vm } from './vm.ts';

/** Where `enterLongMode` puts its page tables: three pages. */
const tablesAddress = 0x1000n;
/** And its descriptor table: null, 64-bit code, data. */
const descriptorsAddress = 0x4000n;
const descriptors = [0n, 0x00af9b000000ffffn, 0x00cf93000000ffffn];
/** Selector of the code segment. */
export const codeSelector = 0x08;
const pageBytes = 4096n;

/** Page-table bits: present and writable; 2 MiB page. Intel SDM vol. 3, 4.5. */
const presentWritable = 0x3n;
const largePage = 0x80n;

/** CR0: PE, MP, ET, NE, WP, PG. CR4: PAE, OSFXSR, OSXMMEXCPT. EFER: LME, LMA. */
const longModeControl = { cr0: 0x80010033n, cr4: 0x620n, efer: 0x500n } as const;
/** CR4.OSXSAVE: the guest may use XSAVE; only where CPUID has it. */
export const osXsave = 1n << 18n;

function segment(selector: number, kind: number, longMode: boolean): Segment {
  return {
    base: 0n,
    limit: 0xffffffff,
    selector,
    kind,
    present: true,
    privilege: 0,
    defaultSize: !longMode,
    codeOrData: true,
    longMode,
    granularity: true,
    available: false,
    unusable: false,
  };
}

/**
 * Puts a vCPU into 64-bit mode, ring 0, with the first GiB mapped onto itself and flat segments. Writes page tables and descriptors to
 * 0x1000..0x4fff of guest memory. There is no interrupt table: an exception in the guest is a shutdown. `cr4` are further bits for CR4.
 */
export function enterLongMode(vm: Vm, vcpu: Vcpu, { cr4 = 0n }: { cr4?: bigint } = {}): void {
  const [level4, level3, level2] = [tablesAddress, tablesAddress + pageBytes, tablesAddress + 2n * pageBytes] as const;
  vm.write(level4, wordBytes([level3 | presentWritable]));
  vm.write(level3, wordBytes([level2 | presentWritable]));
  vm.write(
    level2,
    wordBytes(Array.from({ length: 512 }, (_, index) => (BigInt(index) << 21n) | presentWritable | largePage)),
  );
  vm.write(descriptorsAddress, wordBytes(descriptors));
  const code = segment(codeSelector, 11, true);
  const data = segment(0x10, 3, false);
  const changes: Partial<SystemRegisters> = {
    ...{ cs: code, ds: data, es: data, fs: data, gs: data, ss: data },
    ...longModeControl,
    gdt: { base: descriptorsAddress, limit: descriptors.length * 8 - 1 },
    cr3: level4,
    cr4: longModeControl.cr4 | cr4,
  };
  vcpu.setSystemRegisters(changes);
}

/** 64-bit words as they lie in memory. */
export function wordBytes(words: readonly bigint[]): Uint8Array {
  return new Uint8Array(BigUint64Array.from(words).buffer);
}
