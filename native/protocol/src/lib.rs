//! The sandbox protocol: one HTTP API, spoken by the daemon to the shim (HTTP/1.1 over a unix socket) and by the shim
//! to the guest agent (HTTP/2 over a virtio-console port). The shim answers it itself for containers on the host kernel.
//!
//! Messages are append-only: a field is never renamed, retyped or removed, a new field has a default, and a reader
//! ignores fields it does not know. [`GENERATION`] grows with each addition that a peer must know of.
//!
//! | method and path | body → answer |
//! |---|---|
//! | `GET /v1/sandbox` | → [`SandboxStatus`] |
//! | `POST /v1/sandbox/stop` | [`StopSandbox`] → 204 when the machine or namespaces are gone (agent: acknowledged, then power-off) |
//! | `POST /v1/sandbox/release` | shim only: the daemon has read the exit records; the shim ends once its readers are done → [`SandboxStatus`] when machine, namespaces and ports are gone |
//! | `POST /v1/sandbox/assign` | shim only: [`Assignment`] → 204; a waiting machine ([`PoolConfig`]) becomes this sandbox |
//! | `POST /v1/containers/{id}` | [`CreateContainer`] → 201 once the root file system and the init process stand ready |
//! | `DELETE /v1/containers/{id}` | agent only: [`RemoveContainer`] → 204; an ended container's mounts and network are gone, the machine fits the next one |
//! | `POST /v1/containers/{id}/pause`, `…/unpause` | → 204 once all of the container's processes stand still, or run again |
//! | `POST /v1/containers/{id}/update` | [`UpdateContainer`] → 204; other limits for a running container |
//! | `POST /v1/containers/{id}/health` | shim only: [`HealthCheck`] → 204; a running container is probed from now on, unless it is already |
//! | `GET /v1/containers/{id}/health` | shim only: `?after=SEQUENCE` → [`HealthReport`], once it is newer |
//! | `GET /v1/containers/{id}/stats` | → [`ContainerStats`] |
//! | `GET /v1/containers/{id}/top` | → [`ProcessList`] |
//! | `POST /v1/containers/{id}/processes/{process}` | [`CreateProcess`] → 201; a further process (exec) in a running container |
//! | `POST …/processes/{process}/start` | → [`Started`]; `init` is the container's own process |
//! | `POST …/processes/{process}/kill` | [`Kill`] → 204 |
//! | `POST …/processes/{process}/resize` | [`Resize`] → 204 |
//! | `POST …/processes/{process}/stdin` | raw bytes, streamed; the end of the body closes stdin unless `?keep=1` → 204 |
//! | `GET …/processes/{process}/output` | `?from=OFFSET` (default: now), `&stdout=1&stderr=1` → the framed stream, until the process ended |
//! | `GET …/processes/{process}/wait` | → [`Exit`], when it ends |
//!
//! **Framed stream**: the Docker multiplex format, `[stream, 0, 0, 0, length BE32]` + payload; stream 1 is stdout
//! (and everything of a terminal), 2 is stderr. Offsets count the whole framed stream of both streams from the start of the
//! process, headers included, whatever a reader filters. The answer's `x-offset` header gives the offset of its first byte.
//! The agent's answer is always framed; the shim's is raw (no headers) for a process with a terminal.
//!
//! Errors: a status ≥ 400 and [`Failure`] as the body.

mod health;
mod usage;

pub use health::{HealthCheck, HealthReport, Probe};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
pub use usage::{
    BlockIoUse, ContainerStats, CpuUse, InterfaceUse, MachineUse, MemoryUse, PidsUse, ProcessFacts, ProcessList,
    UpdateContainer,
};

/// Grows with each addition to this file that a peer must know of.
pub const GENERATION: u32 = 2;

/// The name of a container's own process in paths.
pub const INIT: &str = "init";

/// Name of the virtio-console port that carries the agent's HTTP/2 connection.
pub const AGENT_PORT: &str = "bulkhead.agent";

/// Name of the virtio-console port that carries FUSE requests of bind mounts and volumes.
pub const FILES_PORT: &str = "bulkhead.files";

/// Length, in bytes, of the random preamble that opens a session on a console port, in both directions: the host
/// sends `BULKHEAD` + 8 random bytes, the agent answers with the same 16 bytes, then HTTP/2 starts. A port has no
/// connection boundary, so whatever the agent reads before a preamble is left over from an earlier session and dropped.
pub const PREAMBLE_BYTES: usize = 16;

/// Zero bytes that a host sends before the preamble, reading all the while, where an earlier session on the port may have
/// been broken off in the middle of a frame: one largest frame (256 KiB) and its header. Without them the agent may take
/// the preamble for the rest of that frame. The first session of a port needs none.
pub const FILLER_BYTES: usize = (256 << 10) + 64;

/// Header of the agent's answer to `POST /v1/containers/{id}`: when its steps ended, `name=nanoseconds,…` since it had read the request.
pub const MOMENTS_HEADER: &str = "x-moments";

/// First half of the preamble.
pub const PREAMBLE_MAGIC: &[u8; 8] = b"BULKHEAD";

/// Which wall a sandbox has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wall {
    /// A machine of its own, with its own kernel.
    Vm,
    /// Namespaces and cgroups on the host's kernel.
    Os,
}

/// What the shim is started with: one JSON value, read to its end from file descriptor 3. When it listens it writes one
/// line to file descriptor 4, `{"ready":true}` or a [`Failure`], and closes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxConfig {
    /// [`GENERATION`] of the writer.
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

/// Body of `DELETE /v1/containers/{id}`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemoveContainer {
    /// The layers stay mounted for the next container, which must have the same ones.
    #[serde(default)]
    pub keep_layers: bool,
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
    /// 0 asks for a free one; [`SandboxStatus::ports`] says which.
    pub host_port: u16,
    /// Port inside.
    pub container_port: u16,
}

/// Body of `POST /v1/containers/{id}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateContainer {
    /// The OCI runtime-spec `config.json`, the same for both walls. `root.path` is ignored: the wall builds the root.
    pub spec: serde_json::Value,
    /// Its layers and writable part.
    pub rootfs: Rootfs,
    /// Whether stdin is wanted; otherwise it is /dev/null.
    #[serde(default)]
    pub stdin: bool,
    /// Close stdin for good when the first writer's body ends (Docker's `StdinOnce`).
    #[serde(default)]
    pub stdin_once: bool,
    /// First size of the terminal, if the spec has one.
    #[serde(default)]
    pub terminal_size: Option<Resize>,
    /// Files written into the root before the process starts: path → content (`/etc/hosts`, `/etc/hostname`,
    /// `/etc/resolv.conf`). They replace what the image has there.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Where the shim writes the log; the agent ignores it.
    #[serde(default)]
    pub log: Option<Log>,
    /// `user[:group]` as in the image's or the user's words. Names are looked up in the root's own /etc/passwd and /etc/group, and
    /// replace `spec.process.user`'s ids; HOME is set from it where the environment has none.
    #[serde(default)]
    pub user: String,
    /// Names or numbers for further groups.
    #[serde(default)]
    pub additional_groups: Vec<String>,
    /// The writable part is thrown away with the sandbox (`--rm`): nothing need be flushed at the end.
    #[serde(default)]
    pub ephemeral: bool,
    /// Set by the shim for the agent, none otherwise: what makes this machine this sandbox.
    #[serde(default)]
    pub guest: Option<GuestIdentity>,
}

/// The root file system: read-only layers, lowest first, and one writable part.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rootfs {
    /// Lowest first.
    pub layers: Vec<Layer>,
    /// vm wall: the raw scratch disk (ext4 inside, made from the template); os wall: a directory for `upper` and `work`.
    pub writable_path: String,
    /// Mount the whole read-only (`--read-only`).
    #[serde(default)]
    pub read_only: bool,
}

/// One layer, an EROFS image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// Path of the EROFS image on the host (vm wall; the agent ignores it).
    pub image_path: String,
    /// Its size in bytes, a multiple of 4096: where the next one begins on the layers device.
    pub size_bytes: u64,
    /// Where the host has it mounted (os wall).
    #[serde(default)]
    pub mount_path: String,
}

/// What is renewed in a guest before any user code runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuestIdentity {
    /// Wall clock, nanoseconds since 1970.
    pub realtime_ns: u64,
    /// 64 bytes of entropy in hex.
    pub entropy: String,
    /// Host name.
    pub hostname: String,
    /// 32 hex digits.
    pub machine_id: String,
    /// The interface, or none: then the containers see the loopback only.
    #[serde(default)]
    pub network: Option<Network>,
}

/// Where the shim writes a container's output.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    /// `json-file` or `none`.
    pub driver: String,
    /// The first file; rotated ones get `.1`, `.2` ….
    pub path: String,
    /// Size at which a file is rotated, bytes; 0 is never.
    #[serde(default)]
    pub max_size_bytes: u64,
    /// How many files are kept, this one included; at least 1.
    #[serde(default)]
    pub max_files: u32,
}

/// A further process in a running container.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateProcess {
    /// The runtime-spec `process` object.
    pub process: serde_json::Value,
    /// As in [`CreateContainer::user`].
    #[serde(default)]
    pub user: String,
    /// As in [`CreateContainer::stdin`].
    #[serde(default)]
    pub stdin: bool,
    /// As in [`CreateContainer::terminal_size`].
    #[serde(default)]
    pub terminal_size: Option<Resize>,
}

/// A process was started.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Started {
    /// Process id: the host's for the os wall, the guest's for the vm wall.
    pub pid: u32,
}

/// Body of `kill`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kill {
    /// Signal number.
    pub signal: i32,
}

/// Body of `resize`, and a terminal's first size; in character cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// Body of `stop`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StopSandbox {
    /// After this the machine or the namespaces are killed.
    pub deadline_ms: u64,
}

/// How a process ended. The shim also writes it, fsynced, to `state_dir/exit.json` before it tells anybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    /// The shell's convention: 128 + signal number for a killed process.
    pub exit_code: i32,
    /// The kernel's OOM killer struck in the container's cgroup.
    #[serde(default)]
    pub oom_killed: bool,
    /// Nanoseconds since 1970, the host's clock.
    #[serde(default)]
    pub finished_at_ns: u64,
    /// Why there is no true exit code (the machine died, the kernel panicked …); empty otherwise.
    #[serde(default)]
    pub error: String,
    /// Total length of the framed stream: where a reader knows that it has all.
    #[serde(default)]
    pub output_bytes: u64,
}

/// Answer of `GET /v1/sandbox`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxStatus {
    /// [`GENERATION`] of the answerer.
    pub generation: u32,
    /// `warming` and `waiting` (a pooled machine), `starting`, `running`, `stopped`.
    pub state: String,
    /// Process id of the shim.
    pub shim_pid: u32,
    /// Process id of the machine process, 0 for none.
    #[serde(default)]
    pub machine_pid: u32,
    /// Container id → its state.
    pub containers: BTreeMap<String, ContainerStatus>,
    /// The ports as held, each with its real host port.
    #[serde(default)]
    pub ports: Vec<PortBinding>,
    /// Phases of the start, in order: name and nanoseconds of the host's CLOCK_MONOTONIC.
    #[serde(default)]
    pub phases: Vec<Phase>,
}

/// One moment of a start.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Phase {
    /// For example `machine-spawned`, `agent-ready`, `container-created`, `process-started`, `first-output`.
    pub name: String,
    /// CLOCK_MONOTONIC of the host, nanoseconds.
    pub monotonic_ns: u64,
}

/// State of one container.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    /// `created`, `running`, `exited`.
    pub state: String,
    /// 0 before the start.
    #[serde(default)]
    pub pid: u32,
    /// Its processes stand still.
    #[serde(default)]
    pub paused: bool,
    /// Present once exited.
    #[serde(default)]
    pub exit: Option<Exit>,
}

/// Body of every answer with a status ≥ 400.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// One of the codes below.
    pub code: FailureCode,
    /// Names the object and the cause.
    pub message: String,
}

/// Kinds of failure. An unknown one is read as `Internal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureCode {
    /// The request makes no sense.
    InvalidRequest,
    /// No such container or process.
    NotFound,
    /// Not possible in this state.
    WrongState,
    /// The command was not found in the root (exit code 127).
    CommandNotFound,
    /// The command cannot be executed (exit code 126).
    CommandNotExecutable,
    /// The user or group is not in the root's passwd or group file.
    NoSuchUser,
    /// The working directory cannot be made or entered.
    BadWorkingDirectory,
    /// A host port is in use.
    PortInUse,
    /// Memory, disk or processes have run out.
    ResourceExhausted,
    /// More is asked for than there can be; the message has the numbers.
    LimitExceeded,
    /// The machine did not come up, or died.
    MachineFailed,
    /// A deadline passed.
    TimedOut,
    /// Anything else: a fault of ours or of the host.
    #[serde(other)]
    Internal,
}

impl Failure {
    /// A failure of the given kind.
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The HTTP status that goes with the code.
    pub fn status(&self) -> u16 {
        match self.code {
            FailureCode::InvalidRequest
            | FailureCode::NoSuchUser
            | FailureCode::BadWorkingDirectory
            | FailureCode::LimitExceeded => 400,
            FailureCode::CommandNotFound | FailureCode::CommandNotExecutable => 422,
            FailureCode::NotFound => 404,
            FailureCode::WrongState | FailureCode::PortInUse => 409,
            FailureCode::ResourceExhausted => 507,
            FailureCode::TimedOut => 504,
            FailureCode::MachineFailed | FailureCode::Internal => 500,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
