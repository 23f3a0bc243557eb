//! Loading a Linux kernel: an ELF image by its PVH note, or a bzImage by its 64-bit entry.
//!
//! Sources: <https://docs.kernel.org/arch/x86/boot.html>, <https://xenbits.xen.org/docs/unstable/misc/pvh.html>.

use crate::error::{Error, Result};
use crate::layout;
use crate::memory::{GuestRam, ram_ranges};
use linux_loader::loader::elf::PvhBootCapability;
use linux_loader::loader::{KernelLoader, KernelLoaderResult, bootparam, bzimage::BzImage, elf::Elf};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use vm_memory::{Bytes, GuestAddress};

/// How the first vCPU enters the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// 32-bit protected mode without paging, the start information's address in `ebx`.
    Pvh {
        /// Guest-physical address of the first instruction.
        address: u64,
    },
    /// 64-bit mode with the first 4 GiB mapped one to one, the boot parameters' address in `rsi`.
    Long {
        /// Guest-physical address of the first instruction.
        address: u64,
    },
}

/// Largest initramfs: what the kernel's own 32-bit fields and the RAM below the gap can hold is less in most machines.
const INITRAMFS_BYTES_MAX: u64 = 2 << 30;
/// Highest address of an initramfs, where the kernel's header does not say.
const INITRAMFS_END_MAX: u64 = layout::RAM_GAP;

const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
/// `XEN_HVM_START_MAGIC_VALUE`.
const PVH_MAGIC: u32 = 0x336e_c578;
const BZIMAGE_MAGIC: u32 = 0x5372_6448;
/// `xloadflags`: the kernel has a 64-bit entry.
const XLF_KERNEL_64: u16 = 1;
/// Offset of `acpi_rsdp_addr` in the boot parameters (boot protocol 2.14).
const RSDP_FIELD: usize = 0x70;
/// A boot loader without a number of its own.
const LOADER_UNDEFINED: u8 = 0xff;

struct Initramfs {
    address: u64,
    bytes: u64,
}

/// Loads kernel, initramfs and command line, and writes what the kernel is told about the machine.
pub fn load(
    ram: &GuestRam,
    memory_bytes: u64,
    kernel: &mut File,
    initramfs: Option<&mut File>,
    command_line: &str,
    rsdp: u64,
) -> Result<Entry> {
    write_command_line(ram, command_line)?;
    let mut magic = [0; 4];
    kernel
        .seek(SeekFrom::Start(0))
        .and_then(|_| kernel.read_exact(&mut magic))
        .map_err(|cause| Error::Boot(format!("the kernel cannot be read: {cause}")))?;
    if magic == *b"\x7fELF" {
        return load_elf(ram, memory_bytes, kernel, initramfs, rsdp);
    }
    load_bzimage(ram, memory_bytes, kernel, initramfs, command_line, rsdp)
}

fn load_elf(
    ram: &GuestRam,
    memory_bytes: u64,
    kernel: &mut File,
    initramfs: Option<&mut File>,
    rsdp: u64,
) -> Result<Entry> {
    let loaded = Elf::load(ram, None, kernel, Some(GuestAddress(layout::HIGH_MEMORY)))
        .map_err(|cause| Error::Boot(format!("the ELF kernel does not load into {memory_bytes} bytes: {cause}")))?;
    let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
        return Err(Error::Boot("the ELF kernel has no PVH entry; it needs CONFIG_PVH, or use its bzImage".into()));
    };
    let initramfs = load_initramfs(ram, memory_bytes, initramfs, &loaded, INITRAMFS_END_MAX)?;
    write_start_info(ram, memory_bytes, initramfs.as_ref(), rsdp)?;
    Ok(Entry::Pvh { address: entry.0 })
}

fn load_bzimage(
    ram: &GuestRam,
    memory_bytes: u64,
    kernel: &mut File,
    initramfs: Option<&mut File>,
    command_line: &str,
    rsdp: u64,
) -> Result<Entry> {
    let loaded = BzImage::load(ram, None, kernel, Some(GuestAddress(layout::HIGH_MEMORY))).map_err(|cause| {
        Error::Boot(format!("the kernel is neither an ELF image nor a bzImage that loads: {cause}"))
    })?;
    let Some(mut header) = loaded.setup_header else {
        return Err(Error::Boot("the bzImage has no header".into()));
    };
    let (magic, flags, highest) = (header.header, header.xloadflags, header.initrd_addr_max);
    if magic != BZIMAGE_MAGIC || flags & XLF_KERNEL_64 == 0 {
        return Err(Error::Boot("the bzImage has no 64-bit entry".into()));
    }
    // The header says how much room the kernel needs to unpack itself, from where it is loaded on.
    let unpacked = u64::from(header.init_size);
    let room = KernelLoaderResult { kernel_end: loaded.kernel_end.max(loaded.kernel_load.0 + unpacked), ..loaded };
    let initramfs = load_initramfs(ram, memory_bytes, initramfs, &room, INITRAMFS_END_MAX.min(u64::from(highest) + 1))?;
    header.type_of_loader = LOADER_UNDEFINED;
    header.cmd_line_ptr = layout::COMMAND_LINE as u32;
    header.cmdline_size = command_line.len() as u32;
    if let Some(initramfs) = &initramfs {
        header.ramdisk_image = initramfs.address as u32;
        header.ramdisk_size = initramfs.bytes as u32;
    }
    write_boot_parameters(ram, memory_bytes, header, rsdp)?;
    write_page_tables(ram)?;
    Ok(Entry::Long { address: loaded.kernel_load.0 + 0x200 })
}

fn put<T: vm_memory::ByteValued>(ram: &GuestRam, value: T, address: u64) -> Result<()> {
    ram.write_obj(value, GuestAddress(address))
        .map_err(|cause| Error::Boot(format!("boot structure at {address:#x}: {cause}")))
}

fn write_command_line(ram: &GuestRam, command_line: &str) -> Result<()> {
    if command_line.len() >= layout::COMMAND_LINE_BYTES_MAX {
        return Err(Error::Boot(format!(
            "the kernel command line has {} bytes, {} is the most",
            command_line.len(),
            layout::COMMAND_LINE_BYTES_MAX - 1
        )));
    }
    if command_line.contains('\0') {
        return Err(Error::Boot("the kernel command line contains a zero byte".into()));
    }
    let mut bytes = command_line.as_bytes().to_vec();
    bytes.push(0);
    ram.write_slice(&bytes, GuestAddress(layout::COMMAND_LINE))
        .map_err(|cause| Error::Boot(format!("the command line: {cause}")))
}

fn load_initramfs(
    ram: &GuestRam,
    memory_bytes: u64,
    file: Option<&mut File>,
    kernel: &KernelLoaderResult,
    end_max: u64,
) -> Result<Option<Initramfs>> {
    let Some(file) = file else { return Ok(None) };
    let unreadable = |cause: std::io::Error| Error::Boot(format!("the initramfs cannot be read: {cause}"));
    let bytes = file.metadata().map_err(unreadable)?.len();
    if bytes == 0 {
        return Ok(None);
    }
    let end = memory_bytes.min(end_max);
    let address = end.checked_sub(bytes).map(|address| address & !0xfff);
    let address = address.filter(|&address| bytes <= INITRAMFS_BYTES_MAX && address >= kernel.kernel_end);
    let Some(address) = address else {
        return Err(Error::Boot(format!(
            "kernel (to {:#x}) and initramfs ({bytes} bytes) do not fit into {memory_bytes} bytes of memory",
            kernel.kernel_end
        )));
    };
    file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
    ram.read_exact_volatile_from(GuestAddress(address), file, bytes as usize)
        .map_err(|cause| Error::Boot(format!("the initramfs: {cause}")))?;
    Ok(Some(Initramfs { address, bytes }))
}

/// What the guest is told of its memory: (start, bytes, type).
pub fn memory_map(memory_bytes: u64) -> Vec<(u64, u64, u32)> {
    let acpi = layout::ACPI_TABLES_END - layout::ACPI_TABLES;
    let mut map = vec![(0, layout::LOW_MEMORY_END, E820_RAM), (layout::ACPI_TABLES, acpi, E820_RESERVED)];
    for (start, bytes) in ram_ranges(memory_bytes) {
        let skipped = if start == 0 { layout::HIGH_MEMORY } else { 0 };
        map.push((start + skipped, bytes - skipped, E820_RAM));
    }
    map
}

fn write_start_info(ram: &GuestRam, memory_bytes: u64, initramfs: Option<&Initramfs>, rsdp: u64) -> Result<()> {
    let map = memory_map(memory_bytes);
    for (index, (start, bytes, kind)) in (0_u64..).zip(&map) {
        // struct hvm_memmap_table_entry: address, size, type, reserved.
        put(ram, [*start, *bytes, u64::from(*kind)], layout::PVH_MEMORY_MAP + index * 24)?;
    }
    let modules = layout::PVH_START_INFO + 64;
    if let Some(initramfs) = initramfs {
        // struct hvm_modlist_entry: address, size, command line, reserved.
        put(ram, [initramfs.address, initramfs.bytes, 0, 0], modules)?;
    }
    let count = u64::from(initramfs.is_some());
    // struct hvm_start_info: magic, version, flags, modules (32 bits each), and addresses.
    let info: [u64; 7] = [
        u64::from(PVH_MAGIC) | 1 << 32,
        count << 32,
        if count == 0 { 0 } else { modules },
        layout::COMMAND_LINE,
        rsdp,
        layout::PVH_MEMORY_MAP,
        map.len() as u64,
    ];
    put(ram, info, layout::PVH_START_INFO)
}

fn write_boot_parameters(ram: &GuestRam, memory_bytes: u64, header: bootparam::setup_header, rsdp: u64) -> Result<()> {
    let mut parameters = bootparam::boot_params { hdr: header, ..Default::default() };
    let map = memory_map(memory_bytes);
    for (entry, (start, bytes, kind)) in parameters.e820_table.iter_mut().zip(&map) {
        *entry = bootparam::boot_e820_entry { addr: *start, size: *bytes, r#type: *kind };
    }
    parameters.e820_entries = map.len() as u8;
    put(ram, parameters, layout::BOOT_PARAMETERS)?;
    put(ram, rsdp, layout::BOOT_PARAMETERS + RSDP_FIELD as u64)
}

/// Identity map of the first 4 GiB in pages of 2 MiB.
fn write_page_tables(ram: &GuestRam) -> Result<()> {
    const PRESENT_WRITABLE: u64 = 0b11;
    const LARGE: u64 = 1 << 7;
    let pointers = layout::PAGE_TABLES + 0x1000;
    put(ram, pointers | PRESENT_WRITABLE, layout::PAGE_TABLES)?;
    for gib in 0..4_u64 {
        let directory = layout::PAGE_TABLES + 0x2000 + gib * 0x1000;
        put(ram, directory | PRESENT_WRITABLE, pointers + gib * 8)?;
        let mut entries = [0_u64; 512];
        for (index, entry) in (0_u64..).zip(entries.iter_mut()) {
            *entry = (gib << 30) | (index << 21) | PRESENT_WRITABLE | LARGE;
        }
        for (index, half) in (0_u64..).zip(entries.chunks(32)) {
            let half: [u64; 32] = half.try_into().unwrap_or([0; 32]);
            put(ram, half, directory + index * 256)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Mapping, create_memory_file, map_guest_ram};
    use std::io::Write;

    fn ram(bytes: u64) -> GuestRam {
        map_guest_ram(Some(create_memory_file(bytes).unwrap()), bytes, Mapping::Shared).unwrap()
    }

    fn file(bytes: &[u8]) -> File {
        let file = create_memory_file(bytes.len() as u64).unwrap();
        (&file).write_all(bytes).unwrap();
        file
    }

    #[test]
    fn what_is_no_kernel_is_named_as_such() {
        let ram = ram(64 << 20);
        for bytes in [b"MZ".as_slice(), &[0; 4096], b"\x7fELF", &[0xff; 1000], b""] {
            let refusal = load(&ram, 64 << 20, &mut file(bytes), None, "", 0).unwrap_err();
            assert!(refusal.to_string().starts_with("boot: the "), "{refusal}");
        }
    }

    #[test]
    fn a_command_line_that_the_kernel_would_cut_is_refused() {
        let ram = ram(64 << 20);

        let refusal = load(&ram, 64 << 20, &mut file(&[0; 4096]), None, &"x".repeat(2048), 0).unwrap_err();

        assert!(refusal.to_string().contains("2048 bytes, 2047 is the most"), "{refusal}");
    }

    #[test]
    fn the_memory_map_has_every_byte_of_ram_above_1_mib_once() {
        let map = memory_map(5 << 30);

        let ram: u64 = map.iter().filter(|(_, _, kind)| *kind == E820_RAM).map(|(_, bytes, _)| bytes).sum();
        assert_eq!(ram, (5 << 30) - layout::HIGH_MEMORY + layout::LOW_MEMORY_END);
    }

    #[test]
    fn an_initramfs_that_does_not_fit_is_refused() {
        let ram = ram(32 << 20);
        let kernel = KernelLoaderResult { kernel_end: 30 << 20, ..Default::default() };

        let refusal = load_initramfs(&ram, 32 << 20, Some(&mut file(&[1; 4 << 20])), &kernel, 1 << 32);

        assert!(refusal.is_err_and(|refusal| refusal.to_string().contains("do not fit")));
    }
}
