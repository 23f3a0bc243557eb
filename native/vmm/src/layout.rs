//! Where things are in the guest's physical address space.
//!
//! Below 1 MiB lie the structures of the boot protocols and the ACPI tables; the kernel is loaded from 1 MiB on. RAM ends at 3 GiB and
//! goes on at 4 GiB: between are the devices, the I/O APIC and the local APICs.

/// Segment descriptors of the first vCPU.
pub const GDT: u64 = 0x500;
/// PVH start information, followed by the module list.
pub const PVH_START_INFO: u64 = 0x6000;
/// PVH memory map.
pub const PVH_MEMORY_MAP: u64 = 0x6800;
/// Linux boot parameters (the "zero page").
pub const BOOT_PARAMETERS: u64 = 0x7000;
/// Top of a stack that only the first instructions use.
pub const BOOT_STACK: u64 = 0x8ff0;
/// Page tables for a 64-bit entry: one PML4, one PDPT, four page directories.
pub const PAGE_TABLES: u64 = 0x9000;
/// Kernel command line.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// Its longest, with the terminating zero: what x86 Linux takes (COMMAND_LINE_SIZE).
pub const COMMAND_LINE_BYTES_MAX: usize = 2048;
/// End of the conventional memory that the guest is told of.
pub const LOW_MEMORY_END: u64 = 0x9_fc00;
/// The ACPI root pointer; its tables follow. Firmware areas are searched for it from here.
pub const ACPI_TABLES: u64 = 0xe_0000;
/// End of the room for ACPI tables.
pub const ACPI_TABLES_END: u64 = 0x10_0000;
/// Where the kernel may begin.
pub const HIGH_MEMORY: u64 = 0x10_0000;

/// End of the RAM below 4 GiB.
pub const RAM_GAP: u64 = 0xc000_0000;
/// Where RAM goes on.
pub const RAM_AGAIN: u64 = 1 << 32;

/// The first virtio device's registers.
pub const VIRTIO_MMIO: u64 = 0xd000_0000;
/// Distance between two devices, and the size of their registers.
pub const VIRTIO_MMIO_STRIDE: u64 = 0x1000;
/// Offset of the register that a driver writes to say that a queue has work.
pub const QUEUE_NOTIFY: u64 = 0x50;
/// Interrupt (I/O APIC pin) of the first virtio device.
pub const VIRTIO_FIRST_GSI: u32 = 5;
/// Most devices: the I/O APIC has 24 pins.
pub const VIRTIO_DEVICES_MAX: usize = 19;

/// The I/O APIC.
pub const IO_APIC: u32 = 0xfec0_0000;
/// The local APICs.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// Three pages that KVM needs on Intel's CPUs.
pub const KVM_TSS: usize = 0xfffb_d000;
/// One more.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;

/// First I/O port of the serial port.
pub const SERIAL_PORT: u16 = 0x3f8;
/// Its interrupt.
pub const SERIAL_GSI: u32 = 4;
/// Keyboard controller: only its command to reset the machine.
pub const KEYBOARD_COMMAND_PORT: u16 = 0x64;
/// ACPI sleep control register; a sleep type of 5 powers off.
pub const SLEEP_CONTROL_PORT: u16 = 0x600;
/// ACPI sleep status register.
pub const SLEEP_STATUS_PORT: u16 = 0x601;
/// ACPI reset register.
pub const RESET_PORT: u16 = 0x602;
/// What is written there.
pub const RESET_VALUE: u8 = 1;
/// The sleep type of the power-off state, in `\_S5`.
pub const SLEEP_TYPE_OFF: u8 = 5;

/// Most vCPUs: APIC ids are 8 bits, and 255 addresses all; this is what is tested.
pub const VCPUS_MAX: u32 = 64;
/// Least guest memory: below, no Linux unpacks its initramfs.
pub const MEMORY_BYTES_MIN: u64 = 32 << 20;
/// Most guest memory.
pub const MEMORY_BYTES_MAX: u64 = 1 << 40;
