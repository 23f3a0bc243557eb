export { emulationSuberror, type VcpuExit } from './exits.ts';
export { Kvm, type CpuidEntry } from './kvm.ts';
export { enterLongMode } from './long-mode.ts';
export { probeKvm, type KvmProbe, type KvmVendor } from './probe.ts';
export type { DescriptorTable, Registers, Segment, SystemRegisters } from './registers.ts';
export { Vcpu } from './vcpu.ts';
export { Vm, type MemorySpec } from './vm.ts';
