//! What a machine is made from: a [`MachineSpec`] whose numbers are checked and whose descriptors are taken, once.

use crate::cpuid::CpuidMask;
use crate::error::{Error, Result};
use crate::layout;
use crate::memory::Mapping;
use crate::spec::{BackendSpec, DiskSpec, FdSpec, MachineSpec, NetworkSpec};
use crate::virtio::block_backend::{Backend, Extent, SECTOR_BYTES};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Most parts of one disk.
const EXTENTS_MAX: usize = 4096;

/// How a machine begins.
#[derive(Debug)]
pub enum Beginning {
    /// It boots.
    Boot {
        /// Kernel.
        kernel: File,
        /// Initramfs.
        initramfs: Option<File>,
        /// Command line.
        command_line: String,
    },
    /// It goes on from a saved state.
    Restore(File),
}

/// A disk with what it is.
#[derive(Debug)]
pub struct DiskConfig {
    /// Name and serial number.
    pub serial: String,
    /// Its bytes.
    pub backend: Backend,
    /// Limits a second: bytes, operations; 0 is none.
    pub limits: (u64, u64),
}

/// The network card.
#[derive(Debug)]
pub struct NetworkConfig {
    /// The tap.
    pub tap: File,
    /// Its address.
    pub mac: [u8; 6],
    /// Bytes.
    pub mtu: u16,
    /// Limits a second of what the guest sends: bytes, frames; 0 is none.
    pub limits: (u64, u64),
}

/// A machine to build.
#[derive(Debug)]
pub struct MachineConfig {
    /// vCPUs.
    pub vcpus: u32,
    /// RAM, bytes.
    pub memory_bytes: u64,
    /// The RAM's file; none if anonymous.
    pub memory: Option<File>,
    /// How it is mapped.
    pub mapping: Mapping,
    /// Boot or restore.
    pub beginning: Beginning,
    /// Serial output.
    pub serial: Option<File>,
    /// Console ports: name and host's end.
    pub ports: Vec<(String, Option<OwnedFd>)>,
    /// Disks.
    pub disks: Vec<DiskConfig>,
    /// Network card.
    pub network: Option<NetworkConfig>,
    /// CPU template.
    pub cpuid_masks: Vec<CpuidMask>,
}

/// Inherited descriptors, each taken once.
struct Descriptors {
    taken: BTreeSet<RawFd>,
}

impl Descriptors {
    fn take(&mut self, fd: RawFd, what: &str) -> Result<OwnedFd> {
        if fd <= 2 || !self.taken.insert(fd) {
            return Err(Error::Config(format!("{what}: descriptor {fd} is one of the first three, or named twice")));
        }
        // SAFETY: F_SETFD on a number that is nothing fails and does no harm.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return Err(Error::Config(format!("{what}: descriptor {fd} is not open")));
        }
        // SAFETY: it is open, inherited for this purpose, and taken only once.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn file(&mut self, fd: RawFd, what: &str) -> Result<File> {
        self.take(fd, what).map(File::from)
    }
}

/// Checks a configuration and takes its descriptors. `reserved` are the caller's own.
pub fn take_config(spec: MachineSpec, reserved: &[RawFd]) -> Result<MachineConfig> {
    check_numbers(&spec)?;
    let mut descriptors = Descriptors { taken: reserved.iter().copied().collect() };
    let memory = spec.memory.fd.map(|fd| descriptors.file(fd, "memory")).transpose()?;
    let beginning = take_beginning(&mut descriptors, spec.kernel, spec.initramfs, spec.command_line, spec.restore)?;
    let serial = spec.serial.map(|serial| descriptors.file(serial.fd, "serial")).transpose()?;
    serial.as_ref().map_or(Ok(()), make_nonblocking)?;
    let ports = spec
        .ports
        .into_iter()
        .map(|port| {
            let fd = port.fd.map(|fd| descriptors.take(fd, &format!("port {}", port.name))).transpose()?;
            Ok((port.name, fd))
        })
        .collect::<Result<_>>()?;
    let disks = spec.disks.into_iter().map(|disk| take_disk(&mut descriptors, disk)).collect::<Result<_>>()?;
    let network = spec.network.map(|network| take_network(&mut descriptors, &network)).transpose()?;
    Ok(MachineConfig {
        vcpus: spec.vcpus,
        memory_bytes: spec.memory_bytes,
        memory,
        mapping: spec.memory.mapping,
        beginning,
        serial,
        ports,
        disks,
        network,
        cpuid_masks: spec.cpuid_masks,
    })
}

/// A pipe that nobody reads must not hold a vCPU up.
fn make_nonblocking(file: &File) -> Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: a plain query of an open descriptor.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    // SAFETY: plain flags on an open descriptor.
    if flags < 0 || unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) } < 0 {
        return Err(Error::system("serial", std::io::Error::last_os_error()));
    }
    Ok(())
}

fn check_numbers(spec: &MachineSpec) -> Result<()> {
    if !(1..=layout::VCPUS_MAX).contains(&spec.vcpus) {
        return Err(Error::Config(format!("{} vCPUs; 1 to {} are possible", spec.vcpus, layout::VCPUS_MAX)));
    }
    let memory = layout::MEMORY_BYTES_MIN..=layout::MEMORY_BYTES_MAX;
    if !memory.contains(&spec.memory_bytes) || !spec.memory_bytes.is_multiple_of(4096) {
        return Err(Error::Config(format!(
            "{} bytes of memory; {} to {} in steps of 4096 are possible",
            spec.memory_bytes,
            memory.start(),
            memory.end()
        )));
    }
    // The console, the card and the entropy source have slots too.
    let devices = spec.disks.len() + 3;
    if devices > layout::VIRTIO_DEVICES_MAX {
        return Err(Error::Config(format!(
            "{} disks; {} are possible",
            spec.disks.len(),
            layout::VIRTIO_DEVICES_MAX - 3
        )));
    }
    Ok(())
}

fn take_beginning(
    descriptors: &mut Descriptors,
    kernel: Option<FdSpec>,
    initramfs: Option<FdSpec>,
    command_line: String,
    restore: Option<FdSpec>,
) -> Result<Beginning> {
    match (kernel, restore) {
        (Some(kernel), None) => Ok(Beginning::Boot {
            kernel: descriptors.file(kernel.fd, "kernel")?,
            initramfs: initramfs.map(|file| descriptors.file(file.fd, "initramfs")).transpose()?,
            command_line,
        }),
        (None, Some(state)) => Ok(Beginning::Restore(descriptors.file(state.fd, "saved state")?)),
        _ => Err(Error::Config("a machine begins with a kernel or with a saved state, one of both".into())),
    }
}

fn take_disk(descriptors: &mut Descriptors, spec: DiskSpec) -> Result<DiskConfig> {
    let what = format!("disk {}", spec.serial);
    let limits = (spec.bytes_per_second, spec.operations_per_second);
    let backend = take_backend(spec.backend, &what, &mut |fd| descriptors.file(fd, &what))?;
    Ok(DiskConfig { serial: spec.serial, backend, limits })
}

/// A disk's bytes, with the files that `open` gives for its numbers.
pub fn take_backend(spec: BackendSpec, what: &str, open: &mut dyn FnMut(RawFd) -> Result<File>) -> Result<Backend> {
    let refuse = |cause: std::io::Error| Error::device(what, cause);
    match spec {
        BackendSpec::Empty { bytes, read_only } => {
            if bytes == 0 || !bytes.is_multiple_of(SECTOR_BYTES) || bytes > i64::MAX as u64 {
                return Err(Error::device(what, format!("{bytes} bytes are not possible")));
            }
            Ok(Backend::Empty { bytes, read_only })
        }
        BackendSpec::Raw { fd, read_only } => Backend::from_file(open(fd)?, read_only).map_err(refuse),
        BackendSpec::Extents { extents, bytes } => {
            if extents.len() > EXTENTS_MAX {
                return Err(Error::device(what, format!("{} extents; {EXTENTS_MAX} is the most", extents.len())));
            }
            let extents = extents
                .into_iter()
                .map(|extent| Ok(Extent { file: open(extent.fd)?, offset: extent.offset, bytes: extent.bytes }))
                .collect::<Result<_>>()?;
            Backend::from_extents(extents, bytes).map_err(refuse)
        }
    }
}

fn take_network(descriptors: &mut Descriptors, spec: &NetworkSpec) -> Result<NetworkConfig> {
    let mac = parse_mac(&spec.mac)
        .ok_or_else(|| Error::Config(format!("{:?} is not the address of a network card", spec.mac)))?;
    if spec.mtu < 68 {
        return Err(Error::Config(format!("an MTU of {} bytes; 68 is the least", spec.mtu)));
    }
    let limits = (spec.bytes_per_second, spec.frames_per_second);
    Ok(NetworkConfig { tap: descriptors.file(spec.fd, "network")?, mac, mtu: spec.mtu, limits })
}

/// `02:42:…`, six bytes, for one card.
fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> =
        text.split(':').map(|part| if part.len() == 2 { u8::from_str_radix(part, 16).ok() } else { None }).collect();
    <[u8; 6]>::try_from(bytes?).ok().filter(|mac| mac[0] & 1 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::create_memory_file;
    use crate::spec::parse_spec;
    use std::os::fd::IntoRawFd;

    fn refusal(text: &str) -> String {
        parse_spec(text.as_bytes()).and_then(|spec| take_config(spec, &[])).map(drop).unwrap_err().to_string()
    }

    fn with(fields: &str) -> String {
        format!(r#"{{"vcpus":1,"memoryBytes":134217728,"memory":{{"fd":9999,"mapping":"shared"}}{fields}}}"#)
    }

    #[test]
    fn impossible_numbers_are_refused_by_name() {
        let memory = r#""memory":{"fd":3,"mapping":"shared"}"#;
        for (vcpus, bytes, words) in [
            ("65", "134217728", "65 vCPUs; 1 to 64"),
            ("0", "134217728", "0 vCPUs"),
            ("1", "1048576", "1048576 bytes of memory; 33554432 to"),
            ("1", "134217729", "in steps of 4096"),
            ("1", "18446744073709547520", "bytes of memory"),
        ] {
            let text = format!(r#"{{"vcpus":{vcpus},"memoryBytes":{bytes},{memory}}}"#);
            assert!(refusal(&text).contains(words), "{}", refusal(&text));
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in ["", "{}", "[]", "nonsense", &with(r#","surprise":1"#)] {
            assert!(refusal(text).contains("not understood"), "{text}");
        }
    }

    #[test]
    fn descriptors_must_be_open_and_named_once() {
        let fd = create_memory_file(4096).unwrap().into_raw_fd();
        let twice = format!(
            r#"{{"vcpus":1,"memoryBytes":134217728,"memory":{{"fd":{fd},"mapping":"shared"}},"kernel":{{"fd":{fd}}}}}"#
        );

        assert!(refusal(&twice).contains("named twice"));
        assert!(refusal(&with(r#","kernel":{"fd":9998}"#)).contains("memory: descriptor 9999 is not open"));
    }

    #[test]
    fn an_address_of_a_group_is_not_one_of_a_card() {
        assert_eq!(parse_mac("02:42:ac:11:00:02"), Some([2, 0x42, 0xac, 0x11, 0, 2]));
        for text in ["01:00:00:00:00:00", "02:42", "02:42:ac:11:00:02:03", "2:42:ac:11:00:02", "zz:42:ac:11:00:02"] {
            assert_eq!(parse_mac(text), None, "{text}");
        }
    }
}
