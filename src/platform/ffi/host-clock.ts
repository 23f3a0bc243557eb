import { z } from 'zod';
import { nativeLibrary } from './library.ts';

export interface TscFrequency {
  readonly khz: number;
  /** `kvm`: the kernel's own number; `cpuid`: leaf 0x15; `hypervisor`: leaf 0x40000010; `measured`: against the raw clock, 100 ms. */
  readonly source: 'kvm' | 'cpuid' | 'hypervisor' | 'measured';
}

/** Frequency of the host's time-stamp counter. A saved machine is bound to it. */
export function readTscFrequency(): Promise<TscFrequency> {
  const schema = z.object({ khz: z.number(), source: z.enum(['kvm', 'cpuid', 'hypervisor', 'measured']) });
  return nativeLibrary().effect('bh_tsc_frequency', {}, schema);
}
