//! KVM from any language.

use std::ffi::c_char;
use std::sync::Arc;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};

use super::{arguments, give_handle};
use crate::fault::{BH_ERROR_BUFFER_TOO_SMALL, Fault, guard_code};
use crate::handles::{self, Object};
use crate::kvm::{BhCpuidEntry, BhExit, BhRegisters, BhSystemRegisters, Kvm};

/// Opens the KVM device at `path`, or /dev/kvm if `path` is null, and gives its handle.
///
/// # Safety
/// `path` is null or a zero-terminated string; `kvm` points to a `uint64_t`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_kvm_open(path: *const c_char, kvm: *mut u64) -> i32 {
    guard_code(|| {
        let path = if path.is_null() { c"/dev/kvm" } else { arguments::text(path, "path")? };
        give_handle(Object::Kvm(Arc::new(Kvm::open(path)?)), kvm)
    })
}

/// The version of the kernel's KVM interface; 12 for every Linux since 2.6.22.
#[unsafe(no_mangle)]
pub extern "C" fn bh_kvm_api_version(kvm: u64) -> i32 {
    guard_code(|| handles::kvm(kvm)?.api_version())
}

/// What the kernel answers for the capability `KVM_CAP_*`: 0 if it lacks it, else 1 or a limit.
#[unsafe(no_mangle)]
pub extern "C" fn bh_kvm_capability(kvm: u64, capability: u32) -> i32 {
    guard_code(|| handles::kvm(kvm)?.capability(capability))
}

/// Copies the CPUID leaves that a guest can have, and gives their number. Fails if `capacity` entries do not suffice; 256 always do.
///
/// # Safety
/// `entries` points to `capacity` entries.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_kvm_supported_cpuid(kvm: u64, entries: *mut BhCpuidEntry, capacity: u32) -> i32 {
    guard_code(|| {
        let cpuid = handles::kvm(kvm)?.supported_cpuid()?;
        let leaves = cpuid.as_slice();
        let target = arguments::bytes_mut(entries, capacity as usize, "entries")?;
        let Some(target) = target.get_mut(..leaves.len()) else {
            let needed_bytes = Some(size_of_val(leaves));
            let message = format!("{} CPUID entries do not fit into {capacity}", leaves.len());
            return Err(Fault { needed_bytes, ..Fault::new(BH_ERROR_BUFFER_TOO_SMALL, "entries", message) });
        };
        target.iter_mut().zip(leaves).for_each(|(target, leaf)| *target = BhCpuidEntry::from(*leaf));
        Ok(leaves.len() as i32)
    })
}

/// Creates a machine without memory and vCPUs.
///
/// # Safety
/// `vm` points to a `uint64_t`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_vm_create(kvm: u64, vm: *mut u64) -> i32 {
    guard_code(|| give_handle(Object::Vm(Arc::new(handles::kvm(kvm)?.create_vm()?)), vm))
}

/// Adds the kernel's PIC, IOAPIC and local APICs; before the first vCPU. A HLT then waits in the kernel for an interrupt.
#[unsafe(no_mangle)]
pub extern "C" fn bh_vm_create_irqchip(vm: u64) -> i32 {
    guard_code(|| handles::vm(vm)?.create_irqchip().map(|()| 0))
}

/// Adds zeroed memory that the library owns; gives the slot's number. Address and size are multiples of 4096 bytes.
#[unsafe(no_mangle)]
pub extern "C" fn bh_vm_add_memory(vm: u64, guest_address: u64, size_bytes: u64) -> i32 {
    guard_code(|| handles::vm(vm)?.add_memory(guest_address, size_bytes))
}

/// Copies into guest memory. The range must lie within one slot.
///
/// # Safety
/// `bytes` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_vm_write(vm: u64, guest_address: u64, bytes: *const u8, length: usize) -> i32 {
    guard_code(|| {
        handles::vm(vm)?.write(guest_address, arguments::bytes(bytes, length, "bytes")?)?;
        Ok(0)
    })
}

/// Copies out of guest memory. The range must lie within one slot.
///
/// # Safety
/// `bytes` points to `length` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_vm_read(vm: u64, guest_address: u64, bytes: *mut u8, length: usize) -> i32 {
    guard_code(|| {
        handles::vm(vm)?.read(guest_address, arguments::bytes_mut(bytes, length, "bytes")?)?;
        Ok(0)
    })
}

/// Creates a vCPU in the state after reset, and its thread.
///
/// # Safety
/// `vcpu` points to a `uint64_t`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_vcpu_create(vm: u64, index: u32, vcpu: *mut u64) -> i32 {
    guard_code(|| give_handle(Object::Vcpu(Arc::new(handles::vm(vm)?.create_vcpu(index)?)), vcpu))
}

/// Reads the general registers.
///
/// # Safety
/// `registers` points to a `BhRegisters`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_vcpu_get_registers(vcpu: u64, registers: *mut BhRegisters) -> i32 {
    guard_code(|| {
        *arguments::target(registers, "registers")? = handles::vcpu(vcpu)?.registers()?.into();
        Ok(0)
    })
}

/// Sets all general registers.
///
/// # Safety
/// `registers` points to a `BhRegisters`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_vcpu_set_registers(vcpu: u64, registers: *const BhRegisters) -> i32 {
    guard_code(|| {
        handles::vcpu(vcpu)?.set_registers(&(*arguments::source(registers, "registers")?).into())?;
        Ok(0)
    })
}

/// Reads the system registers.
///
/// # Safety
/// `registers` points to a `BhSystemRegisters`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_vcpu_get_system_registers(vcpu: u64, registers: *mut BhSystemRegisters) -> i32 {
    guard_code(|| {
        *arguments::target(registers, "registers")? = handles::vcpu(vcpu)?.system_registers()?.into();
        Ok(0)
    })
}

/// Sets all system registers.
///
/// # Safety
/// `registers` points to a `BhSystemRegisters`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_vcpu_set_system_registers(vcpu: u64, registers: *const BhSystemRegisters) -> i32 {
    guard_code(|| {
        handles::vcpu(vcpu)?.set_system_registers(&(*arguments::source(registers, "registers")?).into())?;
        Ok(0)
    })
}

/// Sets what the guest's CPUID instruction answers; before the first run.
///
/// # Safety
/// `entries` points to `count` entries.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_vcpu_set_cpuid(vcpu: u64, entries: *const BhCpuidEntry, count: u32) -> i32 {
    guard_code(|| {
        let vcpu = handles::vcpu(vcpu)?;
        if count as usize > KVM_MAX_CPUID_ENTRIES {
            let message = format!("{count} CPUID entries are more than {KVM_MAX_CPUID_ENTRIES}");
            return Err(Fault::invalid("entries", message));
        }
        let leaves: Vec<_> =
            arguments::bytes(entries, count as usize, "entries")?.iter().map(|leaf| (*leaf).into()).collect();
        let cpuid =
            CpuId::from_entries(&leaves).map_err(|error| Fault::invalid("entries", format!("bad CPUID: {error:?}")))?;
        vcpu.set_cpuid(&cpuid)?;
        Ok(0)
    })
}

/// Lets the guest run on the vCPU's own thread and returns at once. `bh_vcpu_event_fd` becomes readable when the run ends; fetch it with
/// `bh_vcpu_finish`. Until then other calls on this vCPU, except `bh_vcpu_kick` and `bh_close`, fail with `BH_ERROR_BUSY`.
#[unsafe(no_mangle)]
pub extern "C" fn bh_vcpu_begin(vcpu: u64) -> i32 {
    guard_code(|| handles::vcpu(vcpu)?.begin().map(|()| 0))
}

/// A descriptor to poll for the end of a run. It belongs to the vCPU: never read or close it.
#[unsafe(no_mangle)]
pub extern "C" fn bh_vcpu_event_fd(vcpu: u64) -> i32 {
    guard_code(|| Ok(handles::vcpu(vcpu)?.event_fd()))
}

/// The exit of the run that ended, and up to `capacity` bytes of its data; one page always suffices. With `wait` not 0 blocks until the
/// run ends. `exit->data_bytes` is the data's whole length.
///
/// # Safety
/// `exit` points to a `BhExit`, `data` to `capacity` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_vcpu_finish(
    vcpu: u64,
    wait: i32,
    exit: *mut BhExit,
    data: *mut u8,
    capacity: usize,
) -> i32 {
    guard_code(|| {
        let target = arguments::target(exit, "exit")?;
        let buffer = arguments::bytes_mut(data, capacity, "data")?;
        let ended = handles::vcpu(vcpu)?.finish(wait != 0)?;
        *target = ended.fields;
        buffer.iter_mut().zip(&ended.data).for_each(|(target, byte)| *target = *byte);
        Ok(0)
    })
}

/// `bh_vcpu_begin` and `bh_vcpu_finish` in one: blocks the calling thread until the run ends.
///
/// # Safety
/// As `bh_vcpu_finish`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_vcpu_run(vcpu: u64, exit: *mut BhExit, data: *mut u8, capacity: usize) -> i32 {
    let begun = bh_vcpu_begin(vcpu);
    if begun < 0 {
        return begun;
    }
    // SAFETY: the caller's promise is the same.
    unsafe { bh_vcpu_finish(vcpu, 1, exit, data, capacity) }
}

/// Gives the guest the value of the read that ended the last run, `exit->data_bytes` bytes, little-endian.
///
/// # Safety
/// `bytes` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_vcpu_answer(vcpu: u64, bytes: *const u8, length: usize) -> i32 {
    guard_code(|| {
        handles::vcpu(vcpu)?.answer(arguments::bytes(bytes, length, "bytes")?)?;
        Ok(0)
    })
}

/// Ends the run in progress: it exits with `BH_EXIT_INTERRUPTED`, unless it ends by itself at the same time. Gives 1 if there was a run,
/// else 0; a kick is never kept for a later run. Allowed from any thread at any time.
#[unsafe(no_mangle)]
pub extern "C" fn bh_vcpu_kick(vcpu: u64) -> i32 {
    guard_code(|| handles::vcpu(vcpu)?.kick().map(i32::from))
}
