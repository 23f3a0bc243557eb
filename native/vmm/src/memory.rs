//! Guest memory: a file, mapped shared (what the guest writes is in the file) or privately (the file is a template).

use crate::error::{Error, Result};
use crate::layout;
use std::fs::File;
use std::sync::Arc;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap};

/// The guest's memory.
pub type GuestRam = vm_memory::GuestMemoryMmap<()>;

/// How the memory file is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mapping {
    /// The guest's writes are in the file: for a memfd, and for a machine that will be saved.
    Shared,
    /// The guest's writes are this process's own: for machines that begin as copies of a saved one.
    Private,
    /// No file, and huge pages where the host has them: for machines that are never saved. Each page that a guest touches first
    /// costs an exit; of 2 MiB there are fewer.
    Anonymous,
}

/// The guest's RAM as ranges of guest-physical addresses: (start, bytes), in the order in which they are in the file.
pub fn ram_ranges(memory_bytes: u64) -> Vec<(u64, u64)> {
    let low = memory_bytes.min(layout::RAM_GAP);
    let high = memory_bytes - low;
    let mut ranges = vec![(0, low)];
    if high > 0 {
        ranges.push((layout::RAM_AGAIN, high));
    }
    ranges
}

/// Maps the guest's memory. A file must be long enough: a page beyond its end would kill the process (SIGBUS).
pub fn map_guest_ram(file: Option<File>, memory_bytes: u64, mapping: Mapping) -> Result<GuestRam> {
    let file = match (file, mapping) {
        (None, Mapping::Anonymous) => None,
        (Some(file), Mapping::Shared | Mapping::Private) => Some(Arc::new(file)),
        _ => return Err(Error::Memory("a shared or private mapping has a file, an anonymous one has none".into())),
    };
    if let Some(file) = &file {
        let length = file.metadata().map_err(|cause| Error::system("the memory file", cause))?.len();
        if length < memory_bytes {
            return Err(Error::Memory(format!("the memory file has {length} bytes, the machine {memory_bytes}")));
        }
    }
    let mut offset = 0;
    let mut regions = Vec::new();
    for (start, bytes) in ram_ranges(memory_bytes) {
        let part = file.as_ref().map(|file| FileOffset::from_arc(Arc::clone(file), offset));
        regions.push(map_range(part, start, bytes, mapping)?);
        offset += bytes;
    }
    GuestRam::from_regions(regions).map_err(|cause| Error::Memory(cause.to_string()))
}

fn map_range(file: Option<FileOffset>, start: u64, bytes: u64, mapping: Mapping) -> Result<GuestRegionMmap<()>> {
    let flags = match mapping {
        Mapping::Shared => libc::MAP_SHARED,
        Mapping::Private => libc::MAP_PRIVATE,
        Mapping::Anonymous => libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    };
    let size = usize::try_from(bytes).map_err(|_| Error::Memory("too large for this process".into()))?;
    let mut builder = MmapRegionBuilder::new(size)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(flags | libc::MAP_NORESERVE);
    if let Some(file) = file {
        builder = builder.with_file_offset(file);
    }
    let region = builder.build().map_err(|cause| Error::Memory(format!("mapping {bytes} bytes: {cause}")))?;
    if mapping == Mapping::Anonymous {
        // SAFETY: the range was just mapped. A host without huge pages refuses, and small ones do too.
        unsafe { libc::madvise(region.as_ptr().cast(), size, libc::MADV_HUGEPAGE) };
    }
    GuestRegionMmap::new(region, GuestAddress(start))
        .ok_or_else(|| Error::Memory(format!("{bytes} bytes at {start:#x} are no range of addresses")))
}

/// Registers the memory with KVM, one slot for each range.
pub fn register_memory(vm: &kvm_ioctls::VmFd, ram: &GuestRam) -> Result<()> {
    for (slot, region) in (0..).zip(ram.iter()) {
        let host = ram
            .get_host_address(region.start_addr())
            .map_err(|cause| Error::Memory(format!("slot {slot}: {cause}")))?;
        let memory = kvm_bindings::kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: host as u64,
        };
        // SAFETY: the mapping is as long as the slot says, and it lives as long as the machine: each device holds the memory too.
        unsafe { vm.set_user_memory_region(memory) }
            .map_err(|cause| Error::kvm(format!("memory slot {slot} of {} bytes", region.len()), cause))?;
    }
    Ok(())
}

/// Anonymous memory for the guest, as a memfd that cannot shrink.
pub fn create_memory_file(memory_bytes: u64) -> Result<File> {
    use std::os::fd::FromRawFd;
    // SAFETY: a zero-terminated name and plain flags.
    let fd = unsafe { libc::memfd_create(c"guest-ram".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if fd < 0 {
        return Err(Error::system("memfd_create", std::io::Error::last_os_error()));
    }
    // SAFETY: a descriptor that was just made and is nobody else's.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(memory_bytes).map_err(|cause| Error::system(format!("{memory_bytes} bytes of memory"), cause))?;
    // SAFETY: plain numbers on an open descriptor.
    if unsafe { libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL) } < 0 {
        return Err(Error::system("sealing the memory file", std::io::Error::last_os_error()));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    #[test]
    fn memory_leaves_room_for_the_devices_below_4_gib() {
        assert_eq!(ram_ranges(1 << 30), [(0, 1 << 30)]);
        assert_eq!(ram_ranges(4 << 30), [(0, 3 << 30), (4 << 30, 1 << 30)]);
    }

    #[test]
    fn a_file_that_is_too_short_is_refused_before_it_can_kill() {
        let file = create_memory_file(1 << 20).unwrap();

        let refusal = map_guest_ram(Some(file), 2 << 20, Mapping::Shared).unwrap_err();

        assert!(refusal.to_string().contains("has 1048576 bytes, the machine 2097152"), "{refusal}");
    }

    #[test]
    fn writes_to_a_private_mapping_stay_out_of_the_file() {
        let file = create_memory_file(1 << 20).unwrap();
        let shared = map_guest_ram(Some(file.try_clone().unwrap()), 1 << 20, Mapping::Shared).unwrap();
        shared.write_obj(1_u64, GuestAddress(0x1000)).unwrap();
        let private = map_guest_ram(Some(file), 1 << 20, Mapping::Private).unwrap();

        private.write_obj(2_u64, GuestAddress(0x1000)).unwrap();

        assert_eq!(shared.read_obj::<u64>(GuestAddress(0x1000)).unwrap(), 1);
        assert_eq!(private.read_obj::<u64>(GuestAddress(0x1000)).unwrap(), 2);
    }
}
