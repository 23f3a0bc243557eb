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

mod answers;
mod config;
mod failure;
mod health;
mod requests;
mod usage;

pub use answers::{ContainerStatus, Exit, Phase, SandboxStatus};
pub use config::{
    Assignment, MachineConfig, MachineTemplate, Network, OsConfig, PoolConfig, PortBinding, SandboxConfig, WallConfig,
};
pub use failure::{Failure, FailureCode};
pub use health::{HealthCheck, HealthReport, Probe};
pub use requests::{
    CreateContainer, CreateProcess, GuestIdentity, Kill, Layer, Log, RemoveContainer, Resize, Rootfs, Started,
    StopSandbox,
};
use serde::{Deserialize, Serialize};
pub use usage::{
    BlockIoUse, ContainerStats, CpuUse, InterfaceUse, MachineUse, MemoryUse, PidsUse, ProcessFacts, ProcessList,
    UpdateContainer,
};

/// Grows with each addition to this crate that a peer must know of.
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
