//! What a container uses and what runs in it: messages of `stats`, `top` and `update`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Body of `POST /v1/containers/{id}/update`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateContainer {
    /// The runtime-spec `linux.resources`, with only what changes.
    pub resources: serde_json::Value,
}

/// Answer of `GET /v1/containers/{id}/stats`. Counters begin with the container's start, and are those of its cgroup: on the host's
/// kernel (os wall) or on the guest's (vm wall).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStats {
    /// When it was read, nanoseconds since 1970, by the reader's clock.
    pub read_at_ns: u64,
    /// CPU time.
    pub cpu: CpuUse,
    /// Memory.
    pub memory: MemoryUse,
    /// Processes and threads.
    pub pids: PidsUse,
    /// Block devices.
    pub block_io: Vec<BlockIoUse>,
    /// Interface name → traffic; the loopback is not among them.
    pub networks: BTreeMap<String, InterfaceUse>,
    /// vm wall, set by the shim: what the machine costs the host.
    pub machine: Option<MachineUse>,
}

/// CPU time, nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CpuUse {
    /// In all.
    pub total_ns: u64,
    /// In programs.
    pub user_ns: u64,
    /// In the kernel.
    pub system_ns: u64,
    /// Of all CPUs that the container could use since they were started, idle time too: what a share is computed with.
    pub of_all_cpus_ns: u64,
    /// Those CPUs: the host's, or the machine's.
    pub online_cpus: u32,
    /// Periods of the CPU limit that have passed, and in how many of them the container was held up, and for how long.
    pub periods: u64,
    /// See `periods`.
    pub throttled_periods: u64,
    /// See `periods`.
    pub throttled_ns: u64,
}

/// Memory, bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemoryUse {
    /// In use, page cache included.
    pub usage_bytes: u64,
    /// The most that was in use; 0 where the kernel does not tell.
    pub max_usage_bytes: u64,
    /// The limit, or all memory of the host or machine where there is none.
    pub limit_bytes: u64,
    /// How often the limit was hit.
    pub failures: u64,
    /// The cgroup's `memory.stat`, by the kernel's own names.
    pub details: BTreeMap<String, u64>,
}

/// Processes and threads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PidsUse {
    /// There are.
    pub current: u64,
    /// May be; 0 is no limit.
    pub limit: u64,
}

/// One block device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BlockIoUse {
    /// Device number.
    pub major: u64,
    /// Device number.
    pub minor: u64,
    /// Read from it.
    pub read_bytes: u64,
    /// Written to it.
    pub written_bytes: u64,
    /// Operations.
    pub reads: u64,
    /// Operations.
    pub writes: u64,
}

/// Traffic of an interface, as the container sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InterfaceUse {
    /// Received.
    pub rx_bytes: u64,
    /// Received.
    pub rx_packets: u64,
    /// Received and broken.
    pub rx_errors: u64,
    /// Received and dropped.
    pub rx_dropped: u64,
    /// Sent.
    pub tx_bytes: u64,
    /// Sent.
    pub tx_packets: u64,
    /// Could not be sent.
    pub tx_errors: u64,
    /// Dropped instead of sent.
    pub tx_dropped: u64,
}

/// What a machine costs its host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineUse {
    /// Memory of the machine process, bytes: what it shares with others counts by its share (PSS).
    pub pss_bytes: u64,
    /// CPU time of the machine process, nanoseconds: the guest's, and that of emulating it.
    pub cpu_ns: u64,
}

/// Answer of `GET /v1/containers/{id}/top`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProcessList {
    /// When it was read, nanoseconds since 1970, by the reader's clock.
    pub read_at_ns: u64,
    /// All memory of the host or machine, bytes.
    pub memory_bytes: u64,
    /// There are more than are listed.
    pub truncated: bool,
    /// By process id.
    pub processes: Vec<ProcessFacts>,
}

/// A process as /proc tells it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProcessFacts {
    /// Numbers of the host (os wall) or of the guest (vm wall).
    pub pid: u32,
    /// Of its parent.
    pub parent_pid: u32,
    /// Process group.
    pub group: i32,
    /// Session.
    pub session: i32,
    /// Effective user.
    pub uid: u32,
    /// `pts/0`, or empty for none.
    pub terminal: String,
    /// The kernel's letter: `R`, `S`, `D`, `T`, `Z` …
    pub state: String,
    /// Threads.
    pub threads: u32,
    /// Nice value.
    pub nice: i32,
    /// Nanoseconds since 1970.
    pub started_at_ns: u64,
    /// In programs and in the kernel, nanoseconds.
    pub cpu_ns: u64,
    /// Address space.
    pub virtual_bytes: u64,
    /// In memory.
    pub resident_bytes: u64,
    /// The program's name, at most 15 bytes.
    pub name: String,
    /// The command line, cut where it is long; empty for one that has none (any more).
    pub arguments: Vec<String>,
}
