//! A machine's saved state: everything but its memory, which is a file of its own.
//!
//! The file: 8 bytes of magic, version and length (32 bits each, little-endian), SHA-256 of the body, the body (JSON). It is read whole,
//! bounded and verified before anything of it takes effect.

use crate::error::{Error, Result};
use kvm_bindings::{
    Msrs, kvm_clock_data, kvm_cpuid_entry2, kvm_debugregs, kvm_irqchip, kvm_lapic_state, kvm_mp_state, kvm_msr_entry,
    kvm_pit_state2, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{VcpuFd, VmFd};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};

/// Grows with each change that an older reader would misunderstand.
pub const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"BHVMSTAT";
const HEADER_BYTES: usize = 16 + 32;
/// 64 vCPUs take about 2 MiB.
const BODY_BYTES_MAX: u32 = 16 << 20;
/// Most entries that KVM's CPUID call takes.
const CPUID_ENTRIES_MAX: usize = kvm_bindings::KVM_MAX_CPUID_ENTRIES;
/// MSRs that are read and written at a time.
const MSR_CHUNK: usize = 64;
/// KVM's three interrupt controllers: two 8259s and the I/O APIC.
const IRQ_CHIPS: [u32; 3] =
    [kvm_bindings::KVM_IRQCHIP_PIC_MASTER, kvm_bindings::KVM_IRQCHIP_PIC_SLAVE, kvm_bindings::KVM_IRQCHIP_IOAPIC];

/// One vCPU.
#[derive(Serialize, Deserialize)]
pub struct VcpuState {
    cpuid: Vec<kvm_cpuid_entry2>,
    mp_state: kvm_mp_state,
    regs: kvm_regs,
    sregs: kvm_sregs,
    xsave: kvm_xsave,
    xcrs: kvm_xcrs,
    debug_regs: kvm_debugregs,
    lapic: kvm_lapic_state,
    msrs: Vec<kvm_msr_entry>,
    events: kvm_vcpu_events,
    tsc_khz: u32,
}

/// What of the machine is neither a vCPU nor one of our devices.
#[derive(Serialize, Deserialize)]
pub struct VmState {
    clock: kvm_clock_data,
    pit: kvm_pit_state2,
    irq_chips: Vec<kvm_irqchip>,
}

/// Everything but the memory.
#[derive(Serialize, Deserialize)]
pub struct MachineState {
    /// Guest memory, bytes.
    pub memory_bytes: u64,
    /// Kind (virtio device id) and name of each device, in the order of their slots.
    pub devices: Vec<DeviceState>,
    /// The interrupt controllers and clocks.
    pub vm: VmState,
    /// The vCPUs.
    pub vcpus: Vec<VcpuState>,
    /// Registers of the serial port, as `vm-superio` has them.
    pub serial: Vec<u8>,
}

/// One virtio device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceState {
    /// Virtio device id.
    pub kind: u32,
    /// Registers of its transport.
    pub transport: crate::virtio::transport::TransportState,
    /// The device's own, as it defines it.
    pub own: serde_json::Value,
}

/// Writes the state file.
pub fn write(state: &MachineState, target: &mut impl Write) -> Result<()> {
    let body = serde_json::to_vec(state).map_err(|cause| Error::State(cause.to_string()))?;
    let length = u32::try_from(body.len()).ok().filter(|&length| length <= BODY_BYTES_MAX);
    let length = length.ok_or_else(|| Error::State(format!("{} bytes are too many", body.len())))?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&Sha256::digest(&body));
    bytes.extend_from_slice(&body);
    target.write_all(&bytes).map_err(|cause| Error::system("writing the saved state", cause))
}

/// Reads and verifies a state file.
pub fn read(source: &mut impl Read) -> Result<MachineState> {
    let mut header = [0; HEADER_BYTES];
    source.read_exact(&mut header).map_err(|cause| Error::State(format!("it has no header: {cause}")))?;
    if &header[..8] != MAGIC {
        return Err(Error::State("it is not one of a Bulkhead machine".into()));
    }
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (version, length) = (number(8), number(12));
    if version != VERSION {
        return Err(Error::State(format!(
            "it has version {version}, this program reads {VERSION}; save the machine anew"
        )));
    }
    if length > BODY_BYTES_MAX {
        return Err(Error::State(format!("it says to have {length} bytes; {BODY_BYTES_MAX} is the most")));
    }
    let mut body = Vec::new();
    source
        .take(u64::from(length) + 1)
        .read_to_end(&mut body)
        .map_err(|cause| Error::system("reading the saved state", cause))?;
    if body.len() != length as usize {
        return Err(Error::State(format!("it should have {length} bytes and has {} or more", body.len())));
    }
    if Sha256::digest(&body)[..] != header[16..] {
        return Err(Error::State("its checksum is wrong: the file is damaged".into()));
    }
    serde_json::from_slice(&body).map_err(|cause| Error::State(format!("it is not understood: {cause}")))
}

/// Reads a paused vCPU. The order matters: `MP_STATE` first, for reading it delivers what was pending at the local APIC; the
/// events last, for the other calls may add to them.
pub(crate) fn save_vcpu(vcpu: &VcpuFd) -> Result<VcpuState> {
    let failed = |what: &'static str| move |cause| Error::kvm(format!("saving {what}"), cause);
    Ok(VcpuState {
        mp_state: vcpu.get_mp_state().map_err(failed("the vCPU's run state"))?,
        regs: vcpu.get_regs().map_err(failed("registers"))?,
        sregs: vcpu.get_sregs().map_err(failed("system registers"))?,
        xsave: vcpu.get_xsave().map_err(failed("the extended state"))?,
        xcrs: vcpu.get_xcrs().map_err(failed("the extended control registers"))?,
        debug_regs: vcpu.get_debug_regs().map_err(failed("debug registers"))?,
        lapic: vcpu.get_lapic().map_err(failed("the local APIC"))?,
        tsc_khz: vcpu.get_tsc_khz().map_err(failed("the clock rate"))?,
        cpuid: vcpu.get_cpuid2(CPUID_ENTRIES_MAX).map_err(failed("CPUID"))?.as_slice().to_vec(),
        msrs: read_msrs(vcpu)?,
        events: vcpu.get_vcpu_events().map_err(failed("pending events"))?,
    })
}

/// MSRs that make no sense on another machine or that KVM takes only from the guest.
fn belongs_to_the_host(index: u32) -> bool {
    // Microcode version, and the platform's own.
    matches!(index, 0x8b | 0x17 | 0x10a | 0xcf | 0xc001_001f | 0xc001_0015 | 0xc000_0104)
}

fn read_msrs(vcpu: &VcpuFd) -> Result<Vec<kvm_msr_entry>> {
    let mut found = Vec::new();
    for chunk in MSR_LIST.get().map_or(&[][..], Vec::as_slice).chunks(MSR_CHUNK) {
        read_msr_chunk(vcpu, chunk, &mut found)?;
    }
    Ok(found)
}

/// KVM reads them in order and stops at the first that it cannot: that one is left out, the rest is asked for again.
fn read_msr_chunk(vcpu: &VcpuFd, mut indices: &[u32], found: &mut Vec<kvm_msr_entry>) -> Result<()> {
    while !indices.is_empty() {
        let entries: Vec<kvm_msr_entry> =
            indices.iter().map(|&index| kvm_msr_entry { index, ..Default::default() }).collect();
        let mut list = Msrs::from_entries(&entries).map_err(|cause| Error::State(format!("{cause:?}")))?;
        let count = vcpu.get_msrs(&mut list).map_err(|cause| Error::kvm("saving the MSRs", cause))?;
        found.extend_from_slice(&list.as_slice()[..count.min(indices.len())]);
        indices = indices.get(count + 1..).unwrap_or(&[]);
    }
    Ok(())
}

static MSR_LIST: std::sync::OnceLock<Vec<u32>> = std::sync::OnceLock::new();

/// Notes which MSRs this host's KVM saves; once, while `/dev/kvm` is at hand.
pub(crate) fn learn_msrs(kvm: &kvm_ioctls::Kvm) -> Result<()> {
    let list = kvm.get_msr_index_list().map_err(|cause| Error::kvm("the list of MSRs", cause))?;
    let _ = MSR_LIST.set(list.as_slice().iter().copied().filter(|&index| !belongs_to_the_host(index)).collect());
    Ok(())
}

/// Sets a new vCPU to a saved state.
pub(crate) fn restore_vcpu(vcpu: &VcpuFd, state: &VcpuState) -> Result<()> {
    let failed = |what: &'static str| move |cause| Error::kvm(format!("restoring {what}"), cause);
    vcpu.set_cpuid2(&crate::cpuid::to_kvm(&state.cpuid)?).map_err(failed("CPUID"))?;
    let khz = vcpu.get_tsc_khz().map_err(failed("the clock rate"))?;
    // KVM's own tolerance; beyond, the guest's clock would run wrong.
    if khz.abs_diff(state.tsc_khz) > state.tsc_khz / 4000 {
        vcpu.set_tsc_khz(state.tsc_khz).map_err(|cause| {
            Error::State(format!(
                "it is of a CPU of {} kHz, this one has {khz} and cannot scale it: {cause}",
                state.tsc_khz
            ))
        })?;
    }
    vcpu.set_mp_state(state.mp_state).map_err(failed("the vCPU's run state"))?;
    vcpu.set_regs(&state.regs).map_err(failed("registers"))?;
    vcpu.set_sregs(&state.sregs).map_err(failed("system registers"))?;
    // SAFETY: without permission to use AMX, which this process never asks for, KVM reads no more than the structure has.
    unsafe { vcpu.set_xsave(&state.xsave) }.map_err(failed("the extended state"))?;
    vcpu.set_xcrs(&state.xcrs).map_err(failed("the extended control registers"))?;
    vcpu.set_debug_regs(&state.debug_regs).map_err(failed("debug registers"))?;
    vcpu.set_lapic(&state.lapic).map_err(failed("the local APIC"))?;
    write_msrs(vcpu, &state.msrs)?;
    vcpu.set_vcpu_events(&state.events).map_err(failed("pending events"))?;
    // A guest whose kvmclock is not in use yet has nothing to be told (EINVAL).
    let _ = vcpu.kvmclock_ctrl();
    Ok(())
}

const MSR_TSC: u32 = 0x10;
const MSR_TSC_DEADLINE: u32 = 0x6e0;

/// The counter before the deadline that is compared to it.
fn write_msrs(vcpu: &VcpuFd, msrs: &[kvm_msr_entry]) -> Result<()> {
    let mut ordered = msrs.to_vec();
    ordered.sort_by_key(|entry| match entry.index {
        MSR_TSC => 0,
        MSR_TSC_DEADLINE => 2,
        _ => 1,
    });
    for chunk in ordered.chunks(MSR_CHUNK) {
        let list = Msrs::from_entries(chunk).map_err(|cause| Error::State(format!("{cause:?}")))?;
        let count = vcpu.set_msrs(&list).map_err(|cause| Error::kvm("restoring the MSRs", cause))?;
        if let Some(refused) = chunk.get(count) {
            return Err(Error::State(format!(
                "this host refuses MSR {:#x} = {:#x} of the saved machine",
                refused.index, refused.data
            )));
        }
    }
    Ok(())
}

/// Reads the interrupt controllers and clocks; the vCPUs are paused.
pub(crate) fn save_vm(vm: &VmFd) -> Result<VmState> {
    let mut clock = vm.get_clock().map_err(|cause| Error::kvm("saving the clock", cause))?;
    // The flags tell what was measured; only the value is restored.
    clock.flags = 0;
    let pit = vm.get_pit2().map_err(|cause| Error::kvm("saving the timer", cause))?;
    let irq_chips = IRQ_CHIPS
        .into_iter()
        .map(|chip_id| {
            let mut chip = kvm_irqchip { chip_id, ..Default::default() };
            vm.get_irqchip(&mut chip).map_err(|cause| Error::kvm("saving an interrupt controller", cause))?;
            Ok(chip)
        })
        .collect::<Result<_>>()?;
    Ok(VmState { clock, pit, irq_chips })
}

/// Sets a new machine's interrupt controllers and clocks; its vCPUs are restored.
pub(crate) fn restore_vm(vm: &VmFd, state: &VmState) -> Result<()> {
    vm.set_pit2(&state.pit).map_err(|cause| Error::kvm("restoring the timer", cause))?;
    vm.set_clock(&state.clock).map_err(|cause| Error::kvm("restoring the clock", cause))?;
    for chip in &state.irq_chips {
        vm.set_irqchip(chip).map_err(|cause| Error::kvm("restoring an interrupt controller", cause))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> MachineState {
        let vm = VmState { clock: Default::default(), pit: Default::default(), irq_chips: vec![Default::default()] };
        MachineState { memory_bytes: 1 << 28, devices: Vec::new(), vm, vcpus: Vec::new(), serial: vec![1, 2] }
    }

    fn written() -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&state(), &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_was_written_is_read() {
        let read = read(&mut written().as_slice()).unwrap();

        assert_eq!((read.memory_bytes, read.serial), (1 << 28, vec![1, 2]));
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let bytes = written();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert!(read(&mut damaged.as_slice()).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_cut_off_or_lengthened_file_is_refused() {
        let bytes = written();
        for length in [0, 7, 47, bytes.len() - 1] {
            assert!(read(&mut &bytes[..length]).is_err(), "{length}");
        }
        let refusal = read(&mut [bytes, vec![0]].concat().as_slice()).map(drop).unwrap_err();
        assert!(refusal.to_string().contains("should have"), "{refusal}");
    }

    #[test]
    fn a_length_that_no_machine_has_is_refused_before_it_is_read() {
        let mut bytes = written();
        bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());

        let refusal = read(&mut bytes.as_slice()).map(drop).unwrap_err();

        assert!(refusal.to_string().contains("is the most"), "{refusal}");
    }
}
