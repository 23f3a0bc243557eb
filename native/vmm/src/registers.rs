//! The registers with which the first vCPU enters a kernel.

use crate::boot::Entry;
use crate::error::{Error, Result};
use crate::layout;
use crate::memory::GuestRam;
use kvm_bindings::{Msrs, kvm_fpu, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress};

const CR0_PROTECTED: u64 = 1;
const CR0_EXTENSION_TYPE: u64 = 1 << 4;
const CR0_PAGING: u64 = 1 << 31;
const CR4_PHYSICAL_ADDRESS_EXTENSION: u64 = 1 << 5;
const EFER_LONG_ENABLE: u64 = 1 << 8;
const EFER_LONG_ACTIVE: u64 = 1 << 10;
/// Bit 1 of the flags is always set.
const FLAGS: u64 = 2;

const MSR_MTRR_DEFAULT: u32 = 0x2ff;
/// Write-back for all memory, MTRRs on: without it some kernels take all of it for uncached.
const MTRR_WRITE_BACK: u64 = 1 << 11 | 6;

/// Initial values of the floating point unit's control registers.
const FPU_CONTROL: u16 = 0x37f;
const MXCSR: u32 = 0x1f80;

/// Descriptors at [`layout::GDT`]: none, code, data, task state.
fn segments(long: bool) -> [kvm_segment; 4] {
    let flat = |index: u16, kind: u8| kvm_segment {
        limit: 0xffff_ffff,
        selector: index * 8,
        type_: kind,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    let mut code = flat(1, 0b1011);
    if long {
        code.db = 0;
        code.l = 1;
    }
    let task = kvm_segment { limit: 0x67, s: 0, g: 0, db: 0, ..flat(3, 0b1011) };
    [kvm_segment { unusable: 1, ..Default::default() }, code, flat(2, 0b0011), task]
}

/// A segment as the descriptor table has it (AMD64 manual volume 2, figure 4-13).
fn descriptor(segment: &kvm_segment) -> u64 {
    if segment.unusable == 1 {
        return 0;
    }
    let limit = u64::from(if segment.g == 1 { segment.limit >> 12 } else { segment.limit });
    let access = u64::from(segment.type_)
        | u64::from(segment.s) << 4
        | u64::from(segment.dpl) << 5
        | u64::from(segment.present) << 7;
    let flags =
        u64::from(segment.avl) | u64::from(segment.l) << 1 | u64::from(segment.db) << 2 | u64::from(segment.g) << 3;
    limit & 0xffff
        | (segment.base & 0xff_ffff) << 16
        | access << 40
        | (limit >> 16 & 0xf) << 48
        | flags << 52
        | (segment.base >> 24 & 0xff) << 56
}

/// Sets the vCPU to the kernel's entry.
pub fn set_entry(vcpu: &VcpuFd, ram: &GuestRam, entry: Entry) -> Result<()> {
    let failed = |what: &'static str| move |cause| Error::kvm(what, cause);
    let mut system = vcpu.get_sregs().map_err(failed("reading the system registers"))?;
    let long = matches!(entry, Entry::Long { .. });
    let table = segments(long);
    let bytes: Vec<u8> = table.iter().flat_map(|segment| descriptor(segment).to_le_bytes()).collect();
    ram.write_slice(&bytes, GuestAddress(layout::GDT))
        .map_err(|cause| Error::Boot(format!("the descriptor table: {cause}")))?;
    set_system_registers(&mut system, &table, bytes.len() as u16 - 1, long);
    vcpu.set_sregs(&system).map_err(failed("setting the system registers"))?;
    let general = match entry {
        Entry::Pvh { address } => {
            kvm_regs { rip: address, rbx: layout::PVH_START_INFO, rflags: FLAGS, ..Default::default() }
        }
        Entry::Long { address } => kvm_regs {
            rip: address,
            rsi: layout::BOOT_PARAMETERS,
            rsp: layout::BOOT_STACK,
            rbp: layout::BOOT_STACK,
            rflags: FLAGS,
            ..Default::default()
        },
    };
    vcpu.set_regs(&general).map_err(failed("setting the registers"))
}

fn set_system_registers(system: &mut kvm_sregs, table: &[kvm_segment; 4], gdt_limit: u16, long: bool) {
    let [_, code, data, task] = *table;
    system.gdt.base = layout::GDT;
    system.gdt.limit = gdt_limit;
    system.idt.base = 0;
    system.idt.limit = 0;
    system.cs = code;
    (system.ds, system.es, system.fs, system.gs, system.ss) = (data, data, data, data, data);
    system.tr = task;
    system.cr0 = CR0_PROTECTED | CR0_EXTENSION_TYPE;
    system.cr4 = 0;
    if long {
        system.cr0 |= CR0_PAGING;
        system.cr3 = layout::PAGE_TABLES;
        system.cr4 = CR4_PHYSICAL_ADDRESS_EXTENSION;
        system.efer |= EFER_LONG_ENABLE | EFER_LONG_ACTIVE;
    }
}

/// What every vCPU begins with, whichever enters the kernel first.
pub fn set_reset_state(vcpu: &VcpuFd) -> Result<()> {
    vcpu.set_fpu(&kvm_fpu { fcw: FPU_CONTROL, mxcsr: MXCSR, ..Default::default() })
        .map_err(|cause| Error::kvm("setting the floating point unit", cause))?;
    let entry = kvm_msr_entry { index: MSR_MTRR_DEFAULT, data: MTRR_WRITE_BACK, ..Default::default() };
    let list = Msrs::from_entries(&[entry]).map_err(|cause| Error::Config(format!("{cause:?}")))?;
    match vcpu.set_msrs(&list) {
        Ok(1) => Ok(()),
        Ok(_) => Err(Error::Boot("KVM refuses the memory type of the guest's memory (MTRR)".into())),
        Err(cause) => Err(Error::kvm("setting the memory type", cause)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_the_processors() {
        let [none, code32, data, _] = segments(false);
        let [_, code64, ..] = segments(true);

        assert_eq!(descriptor(&none), 0);
        assert_eq!(descriptor(&code32), 0x00cf_9b00_0000_ffff);
        assert_eq!(descriptor(&code64), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(&data), 0x00cf_9300_0000_ffff);
    }
}
