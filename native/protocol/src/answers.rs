//! What a sandbox tells of itself.

use crate::PortBinding;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
    /// [`crate::GENERATION`] of the answerer.
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
