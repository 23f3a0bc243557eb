//! The fixed slot table: which device sits on which virtio-mmio transport, from the first boot on, whatever container the
//! machine is for, so that a saved machine fits every container.
//!
//! Facts of QEMU's microvm that shape it (checked with 7.2):
//! - Transport 0 is never used. Its interrupt is pin 0 of the second I/O APIC, and QEMU's I/O APIC model turns vector 0 into 2
//!   (an ISA rule, applied to both chips), so a device there never interrupts: a console port then never appears.
//! - ACPI lists the transports from the highest to the lowest, and Linux probes in that order: the higher transport gets
//!   the lower name. So the layers are `vda` and the scratch disk is `vdb`; they also carry serial numbers
//!   (`/sys/block/*/serial`), which do not depend on any order.
//! - Only occupied transports are described, so a slot that may be needed later must be occupied from the start.

/// Console ports: the agent's and the files'.
pub const CONSOLE: u8 = 5;
/// The layers, one read-only device.
pub const LAYERS: u8 = 4;
/// The scratch disk.
pub const SCRATCH: u8 = 3;
/// The network interface.
pub const NETWORK: u8 = 2;
/// The entropy device.
pub const ENTROPY: u8 = 1;

/// `raw` node that the layers device reads from; its child is swapped at assignment.
pub const LAYERS_NODE: &str = "layers";
/// `raw` node that the scratch device uses; its child is swapped at assignment.
pub const SCRATCH_NODE: &str = "scratch";

/// Serial number of the layers device of the machine's first container; the agent finds it by that.
pub const LAYERS_SERIAL: &str = "layers";
/// Serial number of its scratch device.
pub const SCRATCH_SERIAL: &str = "scratch";

/// Size of a slot's null device, and so the capacity that the guest sees for good: EROFS and ext4 carry their own size.
pub const PLACEHOLDER_BYTES: u64 = 1 << 40;

/// The null device that a slot's `raw` node has while nobody has the slot.
pub fn empty_node(node: &str) -> String {
    format!("{node}-empty")
}

/// The name of a transport's bus.
pub fn bus(slot: u8) -> String {
    format!("virtio-mmio-bus.{slot}")
}
