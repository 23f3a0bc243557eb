//! The layers of a container as one virtual disk: a VMDK descriptor of FLAT extents, so that the host copies nothing.

use bulkhead_protocol::{Failure, FailureCode, Rootfs};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;

/// As many as overlayfs takes besides the writable one.
pub const LAYERS_MAX: usize = 127;

const SECTOR_BYTES: u64 = 512;
const LAYER_ALIGNMENT_BYTES: u64 = 4096;

fn refuse(message: String) -> Failure {
    Failure::new(FailureCode::InvalidRequest, message)
}

fn open(path: &str, writable: bool, what: &str) -> Result<(File, u64), Failure> {
    let file = OpenOptions::new()
        .read(true)
        .write(writable)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(|error| refuse(format!("{what} {path} cannot be opened: {error}")))?;
    let facts = file.metadata().map_err(|error| refuse(format!("{what} {path}: {error}")))?;
    if !facts.is_file() {
        return Err(refuse(format!("{what} {path} is not a regular file")));
    }
    Ok((file, facts.len()))
}

/// Opens the layers, lowest first, and checks them against what the request says of them.
pub fn open_layers(rootfs: &Rootfs) -> Result<Vec<File>, Failure> {
    if rootfs.layers.len() > LAYERS_MAX {
        return Err(refuse(format!("{} layers are too many: at most {LAYERS_MAX}", rootfs.layers.len())));
    }
    rootfs
        .layers
        .iter()
        .map(|layer| {
            let (file, length) = open(&layer.image_path, false, "layer")?;
            if layer.size_bytes == 0 || layer.size_bytes % LAYER_ALIGNMENT_BYTES != 0 || layer.size_bytes != length {
                let (path, said) = (&layer.image_path, layer.size_bytes);
                return Err(refuse(format!(
                    "layer {path} has {length} bytes; the request says {said}, and a multiple of 4096 is needed"
                )));
            }
            Ok(file)
        })
        .collect()
}

/// Opens the scratch disk.
pub fn open_scratch(rootfs: &Rootfs) -> Result<File, Failure> {
    open(&rootfs.writable_path, true, "scratch disk").map(|(file, _)| file)
}

/// The descriptor of extents whose files QEMU has in the fd sets `first_set`, `first_set` + 1, …
///
/// Two traps of QEMU 7.2: a blank line before an extent makes it count that extent twice, and the access must be written RW
/// (the node is opened read-only all the same).
pub fn descriptor(layer_bytes: &[u64], first_set: usize) -> String {
    let mut text = String::from(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"twoGbMaxExtentFlat\"\n# Extents\n",
    );
    for (index, bytes) in layer_bytes.iter().enumerate() {
        let _ = writeln!(text, "RW {} FLAT \"/dev/fdset/{}\" 0", bytes / SECTOR_BYTES, first_set + index);
    }
    text
}

/// A sealed file in memory with the given text, open for reading only: QEMU takes from an fd set only a descriptor whose
/// access mode is the one that it wants.
pub fn text_file(text: &str) -> std::io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(c"layers", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    file.write_all(text.as_bytes())?;
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&file);
    Ok(File::open(format!("/proc/self/fd/{number}"))?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_protocol::Layer;

    #[test]
    fn a_descriptor_has_one_extent_a_layer_and_no_blank_line() {
        let text = descriptor(&[4096, 8192], 3);

        assert!(text.ends_with("# Extents\nRW 8 FLAT \"/dev/fdset/3\" 0\nRW 16 FLAT \"/dev/fdset/4\" 0\n"), "{text}");
        assert!(!text.contains("\n\n"));
    }

    #[test]
    fn a_layer_of_another_size_than_said_is_refused_by_name() {
        let path = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
        let layer = Layer { image_path: path.clone(), size_bytes: 4096, mount_path: String::new() };
        let rootfs = Rootfs { layers: vec![layer], writable_path: String::new(), read_only: false };

        let failure = open_layers(&rootfs).unwrap_err();

        assert_eq!(failure.code, FailureCode::InvalidRequest);
        assert!(failure.message.contains(&path), "{failure}");
    }

    #[test]
    fn more_layers_than_overlayfs_takes_are_refused() {
        let layer = Layer { image_path: "/x".into(), size_bytes: 4096, mount_path: String::new() };
        let rootfs = Rootfs { layers: vec![layer; 128], writable_path: String::new(), read_only: false };

        assert_eq!(open_layers(&rootfs).unwrap_err().message, "128 layers are too many: at most 127");
    }
}
