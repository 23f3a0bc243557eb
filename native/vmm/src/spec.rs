//! The configuration of a machine as it is written: one JSON value with the numbers of inherited descriptors.

use crate::cpuid::CpuidMask;
use crate::error::{Error, Result};
use crate::memory::Mapping;
use serde::Deserialize;
use std::os::fd::RawFd;

/// Longest configuration, bytes: 127 layers and everything else take about 20 KB.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// The configuration as it is written: JSON, camelCase, unknown fields refused.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MachineSpec {
    /// vCPUs, 1 to 64.
    pub vcpus: u32,
    /// Guest RAM, bytes, a multiple of 4096.
    pub memory_bytes: u64,
    /// Where the RAM is.
    pub memory: MemorySpec,
    /// Kernel; not where a saved state is restored.
    #[serde(default)]
    pub kernel: Option<FdSpec>,
    /// Initramfs.
    #[serde(default)]
    pub initramfs: Option<FdSpec>,
    /// Kernel command line.
    #[serde(default)]
    pub command_line: String,
    /// Saved state to begin with.
    #[serde(default)]
    pub restore: Option<FdSpec>,
    /// Where the serial port's bytes go: a pipe or file.
    #[serde(default)]
    pub serial: Option<FdSpec>,
    /// Console ports, the first is number 1.
    #[serde(default)]
    pub ports: Vec<PortSpec>,
    /// Disks, in the order of their slots.
    #[serde(default)]
    pub disks: Vec<DiskSpec>,
    /// The network card.
    #[serde(default)]
    pub network: Option<NetworkSpec>,
    /// CPU template: what of CPUID stays.
    #[serde(default)]
    pub cpuid_masks: Vec<CpuidMask>,
}

/// An inherited descriptor.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FdSpec {
    /// Its number.
    pub fd: RawFd,
}

/// The memory.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MemorySpec {
    /// Number of its file; none if anonymous.
    #[serde(default)]
    pub fd: Option<RawFd>,
    /// `anonymous`; `shared` for a machine that will be saved; `private` for a copy of one.
    pub mapping: Mapping,
}

/// A console port.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortSpec {
    /// Its name in the guest.
    pub name: String,
    /// A connected stream socket, or none yet.
    #[serde(default)]
    pub fd: Option<RawFd>,
}

/// A disk.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DiskSpec {
    /// Its name in messages and its serial number, at most 20 bytes.
    pub serial: String,
    /// What it is.
    pub backend: BackendSpec,
    /// Bytes a second; 0 is no limit.
    #[serde(default)]
    pub bytes_per_second: u64,
    /// Requests a second; 0 is no limit.
    #[serde(default)]
    pub operations_per_second: u64,
}

/// What a disk is.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum BackendSpec {
    /// Nobody's yet.
    Empty {
        /// Size that the guest sees.
        bytes: u64,
        /// Whether it will only be read.
        #[serde(default)]
        read_only: bool,
    },
    /// Read-only files one after the other.
    Extents {
        /// The parts.
        extents: Vec<ExtentSpec>,
        /// Size that the guest sees; their sum if not said.
        #[serde(default)]
        bytes: Option<u64>,
    },
    /// One file.
    Raw {
        /// Its number.
        fd: RawFd,
        /// Whether it is only read.
        #[serde(default)]
        read_only: bool,
    },
}

/// A part of a disk.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtentSpec {
    /// Number of the file.
    pub fd: RawFd,
    /// Where in it the part begins.
    #[serde(default)]
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
}

/// The network card.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkSpec {
    /// An open tap (IFF_TAP, IFF_NO_PI, IFF_VNET_HDR).
    pub fd: RawFd,
    /// `02:…`.
    pub mac: String,
    /// Bytes.
    #[serde(default = "default_mtu")]
    pub mtu: u16,
    /// Bytes a second that the guest sends; 0 is no limit.
    #[serde(default)]
    pub bytes_per_second: u64,
    /// Frames a second that the guest sends; 0 is no limit.
    #[serde(default)]
    pub frames_per_second: u64,
}

fn default_mtu() -> u16 {
    1500
}

impl MachineSpec {
    /// Numbers of all descriptors that it names.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let files = [&self.kernel, &self.initramfs, &self.restore, &self.serial];
        let mut found: Vec<RawFd> = self.memory.fd.into_iter().collect();
        found.extend(files.into_iter().flatten().map(|file| file.fd));
        found.extend(self.ports.iter().filter_map(|port| port.fd));
        found.extend(self.network.iter().map(|network| network.fd));
        for disk in &self.disks {
            match &disk.backend {
                BackendSpec::Empty { .. } => {}
                BackendSpec::Raw { fd, .. } => found.push(*fd),
                BackendSpec::Extents { extents, .. } => found.extend(extents.iter().map(|extent| extent.fd)),
            }
        }
        found
    }
}

/// Reads a configuration.
pub fn parse_spec(text: &[u8]) -> Result<MachineSpec> {
    serde_json::from_slice(text).map_err(|cause| Error::Config(format!("it is not understood: {cause}")))
}
