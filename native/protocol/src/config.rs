//! What a shim is started with.

use crate::CreateContainer;
use serde::{Deserialize, Serialize};

/// What the shim is started with: one JSON value, read to its end from file descriptor 3. When it listens it writes one
/// line to file descriptor 4, `{"ready":true}` or a [`crate::Failure`], and closes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxConfig {
    /// [`crate::GENERATION`] of the writer.
    pub generation: u32,
    /// 64 hex digits.
    pub id: String,
    /// Short-lived files (socket, bundle, mounts); at most 80 bytes long, exists, mode 0700.
    pub runtime_dir: String,
    /// Files that outlive the sandbox (console log, exit records, container logs).
    pub state_dir: String,
    /// Host name of the sandbox (UTS namespace).
    pub hostname: String,
    /// The one network interface, or none (`--network none`).
    #[serde(default)]
    pub network: Option<Network>,
    /// Host ports held by the shim and forwarded to the sandbox's address.
    #[serde(default)]
    pub ports: Vec<PortBinding>,
    /// vm wall: the machine is made ready and then waits for its assignment; `hostname`, `network` and `ports` come with that.
    #[serde(default)]
    pub pool: Option<PoolConfig>,
    /// The wall and what it needs.
    #[serde(flatten)]
    pub wall: WallConfig,
}

/// Wall-specific half of [`SandboxConfig`], flattened into it with the tag `wall`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "wall", rename_all = "lowercase")]
pub enum WallConfig {
    /// A machine of its own.
    Vm {
        /// The machine.
        machine: MachineConfig,
    },
    /// The host's kernel.
    Os {
        /// Where runc is, and the namespaces' limits.
        os: OsConfig,
    },
    /// No sandbox: a machine is booted, saved before its first session, and ended; readiness is told once it is saved.
    Template {
        /// The machine; its `template` says where to.
        machine: MachineConfig,
    },
}

/// A machine's saved state: two files that belong together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineTemplate {
    /// Guest RAM, sparse, as long as the machine's RAM. Clones map it privately.
    pub ram_path: String,
    /// Devices and CPUs, a stream of the driver's own format.
    pub state_path: String,
}

/// A machine that waits for its container.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolConfig {
    /// A container that is run and removed before the machine waits: under emulation, code that has run once is translated.
    pub warm_up: CreateContainer,
    /// How many times it is run.
    pub rounds: u32,
    /// The layers of the warm-up are those of the containers to come, and stay mounted.
    #[serde(default)]
    pub keep_layers: bool,
    /// A machine that is not ready after this long is given up.
    pub deadline_ms: u64,
}

/// Body of `POST /v1/sandbox/assign`: what a waiting machine lacked of a [`SandboxConfig`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// As in [`SandboxConfig::state_dir`]; what was in the waiting machine's own is written on here.
    pub state_dir: String,
    /// As in [`SandboxConfig::hostname`].
    pub hostname: String,
    /// As in [`SandboxConfig::network`]; `host_interface` is the machine's tap.
    #[serde(default)]
    pub network: Option<Network>,
    /// As in [`SandboxConfig::ports`].
    #[serde(default)]
    pub ports: Vec<PortBinding>,
}

/// A machine, as the shim builds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineConfig {
    /// `qemu`; `kvm` is our own VMM.
    pub driver: String,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// The QEMU program.
    pub qemu_path: String,
    /// Guest kernel: bzImage or ELF with a PVH note.
    pub kernel_path: String,
    /// Guest initramfs: the agent is its `/init`.
    pub initramfs_path: String,
    /// Appended to the kernel command line.
    #[serde(default)]
    pub kernel_arguments: Vec<String>,
    /// Virtual CPUs, 1 or more.
    pub vcpus: u32,
    /// Guest RAM, bytes (the class's size: the container's own limit is enforced in the guest).
    pub memory_bytes: u64,
    /// QEMU `-cpu`, for example `max`.
    pub cpu_model: String,
    /// Unprivileged user and group that the machine process runs as; no other process of the host has it.
    pub uid: u32,
    /// Host cgroup of the machine process, relative to each hierarchy's root, for example `bulkhead/<id>`.
    pub cgroup_path: String,
    /// Name of the tap in the machine's network slot, at most 15 bytes, made from the sandbox's id. A sandbox without a network has the
    /// device too (a saved machine fits every container), connected to nothing and out of its containers' sight.
    pub tap_name: String,
    /// Start from this saved state instead of booting.
    #[serde(default)]
    pub template: Option<MachineTemplate>,
}

/// Needs of the wall of namespaces.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OsConfig {
    /// The runc program.
    pub runc_path: String,
}

/// One interface of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// Host bridge to join.
    pub bridge: String,
    /// Name of the host's end (tap or veth), at most 15 bytes, made from the sandbox's id.
    pub host_interface: String,
    /// Name inside, `eth0`.
    pub interface: String,
    /// `02:42:…`.
    pub mac_address: String,
    /// IPv4 address inside.
    pub ipv4_address: String,
    /// Its prefix length.
    pub ipv4_prefix_length: u8,
    /// IPv4 default gateway.
    pub ipv4_gateway: String,
    /// MTU in bytes.
    pub mtu: u32,
}

/// A host port held for a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortBinding {
    /// `tcp` (UDP is refused before it gets here).
    pub protocol: String,
    /// Address to listen on; empty means every address, IPv4 and IPv6.
    #[serde(default)]
    pub host_ip: String,
    /// 0 asks for a free one; [`crate::SandboxStatus::ports`] says which.
    pub host_port: u16,
    /// Port inside.
    pub container_port: u16,
}
