//! CPUID: what KVM supports, with each vCPU's own identity, and masked so that a machine sees the same CPU wherever it is restored.
//!
//! Sources: Intel SDM volume 2, CPUID; AMD64 manual volume 3, appendix E.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};
use serde::{Deserialize, Serialize};

const LEAF_FEATURES: u32 = 1;
const LEAF_CACHE: u32 = 4;
const LEAF_TOPOLOGY: u32 = 0xb;
const LEAF_TOPOLOGY_V2: u32 = 0x1f;
const LEAF_AMD_SIZES: u32 = 0x8000_0008;
const LEAF_AMD_CACHE: u32 = 0x8000_001d;
const LEAF_AMD_TOPOLOGY: u32 = 0x8000_001e;

const FEATURE_C_TSC_DEADLINE: u32 = 1 << 24;
const FEATURE_C_HYPERVISOR: u32 = 1 << 31;
const FEATURE_D_HYPER_THREADING: u32 = 1 << 28;
/// Significant index of a leaf (`KVM_CPUID_FLAG_SIGNIFCANT_INDEX`).
const INDEXED: u32 = 1;

/// A rule of a CPU template: bits of one register of one leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CpuidMask {
    /// CPUID leaf (`eax`).
    pub leaf: u32,
    /// Sub-leaf (`ecx`).
    #[serde(default)]
    pub subleaf: u32,
    /// Bits of `eax`, `ebx`, `ecx`, `edx` that stay as KVM has them; the others are 0.
    pub keep: [u32; 4],
}

/// The CPUID of one vCPU of several, which are cores of one package.
pub fn vcpu_cpuid(
    supported: &[kvm_cpuid_entry2],
    index: u32,
    count: u32,
    masks: &[CpuidMask],
) -> Vec<kvm_cpuid_entry2> {
    let mut entries: Vec<kvm_cpuid_entry2> =
        supported.iter().filter(|entry| !matches!(entry.function, LEAF_TOPOLOGY | LEAF_TOPOLOGY_V2)).copied().collect();
    for entry in &mut entries {
        identify(entry, index, count);
        for mask in masks.iter().filter(|mask| mask.leaf == entry.function && mask.subleaf == entry.index) {
            let [a, b, c, d] = mask.keep;
            (entry.eax, entry.ebx, entry.ecx, entry.edx) = (entry.eax & a, entry.ebx & b, entry.ecx & c, entry.edx & d);
        }
    }
    if supported.iter().any(|entry| entry.function == 0 && entry.eax >= LEAF_TOPOLOGY) {
        entries.extend(topology(index, count));
    }
    entries
}

/// Bits that number the cores of the package.
fn core_bits(count: u32) -> u32 {
    count.next_power_of_two().trailing_zeros()
}

fn identify(entry: &mut kvm_cpuid_entry2, index: u32, count: u32) {
    match entry.function {
        LEAF_FEATURES => {
            // Initial APIC id, logical CPUs in the package, CLFLUSH line (in units of 8 bytes) as it is.
            entry.ebx = entry.ebx & 0xff00 | index << 24 | count.next_power_of_two() << 16 | entry.ebx & 0xff;
            // KVM's local APIC has the deadline mode; older kernels leave it to us to say so.
            entry.ecx |= FEATURE_C_TSC_DEADLINE | FEATURE_C_HYPERVISOR;
            entry.edx &= !FEATURE_D_HYPER_THREADING;
            if count > 1 {
                entry.edx |= FEATURE_D_HYPER_THREADING;
            }
        }
        // Cores in the package; a cache of the first two levels is a core's own, the third everybody's.
        LEAF_CACHE if entry.eax & 0x1f != 0 => {
            let level = entry.eax >> 5 & 0b111;
            let sharing = if level < 3 { 0 } else { count.next_power_of_two() - 1 };
            entry.eax = entry.eax & 0x3fff | sharing << 14 | (count.next_power_of_two() - 1) << 26;
        }
        LEAF_AMD_SIZES => entry.ecx = core_bits(count) << 12 | (count - 1),
        LEAF_AMD_CACHE if entry.eax & 0x1f != 0 => {
            let level = entry.eax >> 5 & 0b111;
            let sharing = if level < 3 { 0 } else { count - 1 };
            entry.eax = entry.eax & 0x3fff | sharing << 14;
        }
        // Extended APIC id, core id with one thread, one node.
        LEAF_AMD_TOPOLOGY => (entry.eax, entry.ebx, entry.ecx) = (index, index & 0xff, 0),
        _ => {}
    }
}

fn topology(index: u32, count: u32) -> [kvm_cpuid_entry2; 3] {
    let level = |number: u32, kind: u32, shift: u32, processors: u32| kvm_cpuid_entry2 {
        function: LEAF_TOPOLOGY,
        index: number,
        flags: INDEXED,
        eax: shift,
        ebx: processors,
        ecx: kind << 8 | number,
        edx: index,
        ..Default::default()
    };
    // One thread in each core; the cores; no further level.
    [level(0, 1, 0, 1), level(1, 2, core_bits(count), count), level(2, 0, 0, 0)]
}

/// As KVM takes it.
pub fn to_kvm(entries: &[kvm_cpuid_entry2]) -> crate::Result<CpuId> {
    CpuId::from_entries(entries)
        .map_err(|_| crate::Error::Config(format!("{} CPUID entries are too many", entries.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, eax: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, eax, ebx: 0xffff_ffff, ecx: 0xf, edx: 0xf, ..Default::default() }
    }

    #[test]
    fn each_vcpu_has_its_own_number_in_every_place() {
        let supported = [entry(0, 0x20), entry(1, 0), entry(LEAF_AMD_TOPOLOGY, 0), entry(LEAF_TOPOLOGY, 7)];

        let entries = vcpu_cpuid(&supported, 3, 4, &[]);

        let find = |leaf, index| entries.iter().find(|e| e.function == leaf && e.index == index).unwrap();
        assert_eq!(find(1, 0).ebx >> 24, 3);
        assert_eq!(find(1, 0).ebx >> 16 & 0xff, 4);
        assert_eq!(find(LEAF_AMD_TOPOLOGY, 0).eax, 3);
        assert_eq!(find(LEAF_TOPOLOGY, 0).edx, 3);
        assert_eq!((find(LEAF_TOPOLOGY, 1).eax, find(LEAF_TOPOLOGY, 1).ebx), (2, 4));
        assert_eq!(entries.iter().filter(|e| e.function == LEAF_TOPOLOGY).count(), 3);
    }

    #[test]
    fn a_mask_keeps_only_its_bits_of_its_leaf() {
        let supported = [entry(7, 0xff), entry(6, 0xff)];
        let mask = CpuidMask { leaf: 7, subleaf: 0, keep: [0xf, 0, 1, 0xffff_ffff] };

        let entries = vcpu_cpuid(&supported, 0, 1, &[mask]);

        assert_eq!((entries[0].eax, entries[0].ebx, entries[0].ecx, entries[0].edx), (0xf, 0, 1, 0xf));
        assert_eq!(entries[1].eax, 0xff);
    }
}
