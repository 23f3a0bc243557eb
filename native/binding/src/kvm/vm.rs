//! A virtual machine and the memory that the library owns for it.

use std::sync::{Arc, RwLock};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Cap, VmFd};
use vm_memory::{MmapRegion, VolatileMemory, VolatileSlice};

use super::{Kvm, Vcpu, retry_interrupted};
use crate::fault::{BH_ERROR_OUT_OF_RANGE, BH_ERROR_PANIC, Context, Fault, Outcome};

/// x86 page; memory slots start and end on one.
const PAGE_BYTES: u64 = 4096;
/// End of the guest-physical addresses that a 4-level processor has (52 bits).
const ADDRESS_END: u64 = 1 << 52;
/// Most memory of one slot; the kernel's own limit is 2^31 - 1 pages.
const SLOT_LIMIT_BYTES: u64 = 1 << 40;

struct Slot {
    guest_address: u64,
    mapping: MmapRegion,
}

impl Slot {
    fn end(&self) -> u64 {
        self.guest_address + self.mapping.size() as u64
    }
}

/// A machine. Fields drop in order: the machine's descriptor goes before the memory that it maps.
pub struct Vm {
    fd: VmFd,
    slots: RwLock<Vec<Slot>>,
    kvm: Arc<Kvm>,
}

impl Vm {
    pub(super) fn new(kvm: Arc<Kvm>, fd: VmFd) -> Self {
        Self { fd, slots: RwLock::new(Vec::new()), kvm }
    }

    /// Adds the kernel's PIC, IOAPIC and local APICs. Must come before the first vCPU.
    pub fn create_irqchip(&self) -> Outcome<()> {
        self.fd.create_irq_chip().context("create the interrupt controllers of", "the virtual machine")
    }

    /// Anonymous zeroed memory at `guest_address`; gives the slot's number.
    pub fn add_memory(&self, guest_address: u64, size_bytes: u64) -> Outcome<i32> {
        let object = format!("memory slot at {guest_address:#x}");
        let end = guest_address.checked_add(size_bytes).filter(|end| *end <= ADDRESS_END);
        let aligned = guest_address.is_multiple_of(PAGE_BYTES) && size_bytes.is_multiple_of(PAGE_BYTES);
        let (Some(end), true, 1..=SLOT_LIMIT_BYTES) = (end, aligned, size_bytes) else {
            let message = format!(
                "{object} of {size_bytes} bytes: address and size must be multiples of 4096, the size 1 page to 1 TiB, the end below 2^52"
            );
            return Err(Fault::invalid(object, message));
        };
        let mut slots = self.slots.write().map_err(|_| unusable())?;
        if let Some(other) = slots.iter().find(|slot| guest_address < slot.end() && slot.guest_address < end) {
            let message = format!(
                "{object} of {size_bytes} bytes overlaps the slot at {:#x} of {} bytes",
                other.guest_address,
                other.mapping.size()
            );
            return Err(Fault::new(BH_ERROR_OUT_OF_RANGE, object, message));
        }
        let limit = self.kvm.capability(Cap::NrMemslots as u32)?;
        if slots.len() as i64 >= i64::from(limit.max(32)) {
            return Err(Fault::new(
                BH_ERROR_OUT_OF_RANGE,
                object,
                format!("the machine has its {limit} memory slots already"),
            ));
        }
        let mapping = MmapRegion::new(size_bytes as usize).map_err(|error| {
            let errno = nix::errno::Errno::ENOMEM;
            Fault {
                message: format!("cannot map {size_bytes} bytes for the {object}: {error}"),
                ..Fault::system(errno, object.clone(), "map")
            }
        })?;
        let number = slots.len() as u32;
        let region = kvm_userspace_memory_region {
            slot: number,
            flags: 0,
            guest_phys_addr: guest_address,
            memory_size: size_bytes,
            userspace_addr: mapping.as_ptr() as u64,
        };
        // SAFETY: the mapping is this object's own, of that size, and is unmapped only after the machine's descriptor is closed by
        // the drop order of `Vm`; vCPUs hold the `Vm`.
        unsafe { self.fd.set_user_memory_region(region) }.context("add the", object)?;
        slots.push(Slot { guest_address, mapping });
        Ok(number as i32)
    }

    /// Copies into the guest's memory.
    pub fn write(&self, guest_address: u64, bytes: &[u8]) -> Outcome<()> {
        self.with_range(guest_address, bytes.len(), |memory| memory.copy_from(bytes))
    }

    /// Copies out of the guest's memory.
    pub fn read(&self, guest_address: u64, bytes: &mut [u8]) -> Outcome<()> {
        let length = bytes.len();
        self.with_range(guest_address, length, |memory| {
            memory.copy_to(bytes);
        })
    }

    /// The range must lie in one slot. The guest can write at the same time, so the access is volatile and never a Rust slice.
    fn with_range(&self, guest_address: u64, length: usize, access: impl FnOnce(VolatileSlice<'_>)) -> Outcome<()> {
        let slots = self.slots.read().map_err(|_| unusable())?;
        let range = slots.iter().find(|slot| slot.guest_address <= guest_address && guest_address < slot.end());
        let memory =
            range.and_then(|slot| slot.mapping.get_slice((guest_address - slot.guest_address) as usize, length).ok());
        let memory = memory.ok_or_else(|| {
            let object = format!("guest memory at {guest_address:#x}");
            let message = format!("{length} bytes of {object} do not lie within one memory slot");
            Fault::new(BH_ERROR_OUT_OF_RANGE, object, message)
        })?;
        access(memory);
        Ok(())
    }

    /// A vCPU in the state of a processor after reset.
    pub fn create_vcpu(self: &Arc<Self>, index: u32) -> Outcome<Vcpu> {
        let fd = retry_interrupted(|| self.fd.create_vcpu(index.into())).context("create", format!("vcpu {index}"))?;
        Vcpu::start(self.clone(), fd, index)
    }
}

fn unusable() -> Fault {
    Fault::new(BH_ERROR_PANIC, "guest memory", "the machine's memory is unusable after an earlier failure")
}
