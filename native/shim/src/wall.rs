//! The seam between the core and the two walls.
//!
//! A wall creates, starts and ends processes; it hands over each process's output as the framed stream (see
//! `bulkhead_protocol`) from offset 0, once, and tells how a process ended. Everything that survives the daemon (rings,
//! readers, logs, exit records, ports) is the core's.

use crate::os::OsWall;
use crate::phases::Phases;
use crate::reaper::Reaper;
use crate::vm::VmWall;
use bulkhead_protocol::{
    Assignment, ContainerStats, CreateContainer, CreateProcess, Exit, Failure, FailureCode, ProcessList, Resize,
    SandboxConfig, Started, UpdateContainer, WallConfig,
};
use bytes::Bytes;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::sync::mpsc;

/// Names a process of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProcessKey {
    /// Container id.
    pub container: String,
    /// Process id as the daemon gave it; `bulkhead_protocol::INIT` for the container's own.
    pub process: String,
}

impl ProcessKey {
    /// The key of a container's own process.
    pub fn init(container: &str) -> Self {
        Self { container: container.to_owned(), process: bulkhead_protocol::INIT.to_owned() }
    }

    /// Whether it is the container's own process.
    pub fn is_init(&self) -> bool {
        self.process == bulkhead_protocol::INIT
    }
}

impl std::fmt::Display for ProcessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} of container {}", self.process, self.container)
    }
}

/// Bytes of the framed stream, in order; chunks need not end where frames end. The end of the channel is the end of the
/// process's output. The channel is bounded, so a core that does not take stops the wall from reading.
pub type FramedOutput = mpsc::Receiver<Bytes>;

/// What the core hands to a wall at its start.
pub struct WallContext {
    /// Where the wall records the moments of its start.
    pub phases: Phases,
    /// The only waiter for children in this process: a wall starts every child through it.
    pub reaper: Reaper,
    /// The host's side of the sandbox's network.
    pub network: NetworkHandle,
}

/// The host's side of the sandbox's network, made before the wall is started.
#[derive(Debug)]
pub enum NetworkHandle {
    /// The tap, IFF_NO_PI and IFF_VNET_HDR, of a network already a port of its bridge and up; not persistent: closing ends it.
    Tap(OwnedFd),
    /// A network namespace, made and configured; closing its last reference ends it.
    Namespace(OwnedFd),
}

/// What a pooled machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolState {
    /// It runs its warm-up.
    Warming,
    /// Its CPUs stand still until it is assigned.
    Waiting,
}

/// A started wall. All methods may be called at the same time from several tasks, and take `&self`.
pub enum ActiveWall {
    /// A machine of its own.
    Vm(Box<VmWall>),
    /// Namespaces and cgroups on the host's kernel.
    Os(Box<OsWall>),
}

macro_rules! either {
    ($self:ident, $wall:ident => $call:expr) => {
        match $self {
            ActiveWall::Vm($wall) => $call,
            ActiveWall::Os($wall) => $call,
        }
    };
}

impl ActiveWall {
    /// Starts the wall that `config` asks for. It returns as soon as requests can be taken; requests wait for the rest.
    pub async fn start(config: &SandboxConfig, context: WallContext) -> Result<Self, Failure> {
        match &config.wall {
            WallConfig::Vm { machine } => {
                VmWall::start(config, machine, context).await.map(|wall| Self::Vm(Box::new(wall)))
            }
            WallConfig::Os { os } => OsWall::start(config, os, context).await.map(|wall| Self::Os(Box::new(wall))),
            WallConfig::Template { .. } => {
                Err(Failure::new(FailureCode::InvalidRequest, "a template is no sandbox: it cannot hold containers"))
            }
        }
    }

    /// Waits until a pooled machine waits for its assignment.
    pub async fn warmed(&self) -> Result<(), Failure> {
        match self {
            Self::Vm(wall) => wall.warmed().await,
            Self::Os(_) => Ok(()),
        }
    }

    /// What a pooled machine without assignment does; none for all others.
    pub fn pool_state(&self) -> Option<PoolState> {
        match self {
            Self::Vm(wall) => wall.pool_state(),
            Self::Os(_) => None,
        }
    }

    /// Makes a waiting machine the sandbox of the assignment. `WrongState` for anything else.
    pub async fn assign(&self, assignment: &Assignment) -> Result<(), Failure> {
        match self {
            Self::Vm(wall) => wall.assign(assignment).await,
            Self::Os(_) => Err(Failure::new(FailureCode::WrongState, "this sandbox has its assignment already")),
        }
    }

    /// Builds the root file system and brings the init process to where only `start_process` is missing.
    pub async fn create_container(&self, id: &str, request: CreateContainer) -> Result<(), Failure> {
        either!(self, wall => wall.create_container(id, request).await)
    }

    /// Prepares a further process in a running container.
    pub async fn create_process(&self, key: &ProcessKey, request: CreateProcess) -> Result<(), Failure> {
        either!(self, wall => wall.create_process(key, request).await)
    }

    /// Starts a created process.
    pub async fn start_process(&self, key: &ProcessKey) -> Result<Started, Failure> {
        either!(self, wall => wall.start_process(key).await)
    }

    /// Sends a signal to a started process.
    pub async fn kill(&self, key: &ProcessKey, signal: i32) -> Result<(), Failure> {
        either!(self, wall => wall.kill(key, signal).await)
    }

    /// Makes all processes of a container stand still.
    pub async fn pause(&self, id: &str) -> Result<(), Failure> {
        either!(self, wall => wall.pause(id).await)
    }

    /// Lets them run again.
    pub async fn unpause(&self, id: &str) -> Result<(), Failure> {
        either!(self, wall => wall.unpause(id).await)
    }

    /// Gives a running container other limits.
    pub async fn update(&self, id: &str, request: UpdateContainer) -> Result<(), Failure> {
        either!(self, wall => wall.update(id, request).await)
    }

    /// What a running container has used.
    pub async fn stats(&self, id: &str) -> Result<ContainerStats, Failure> {
        either!(self, wall => wall.stats(id).await)
    }

    /// The processes of a running container.
    pub async fn top(&self, id: &str) -> Result<ProcessList, Failure> {
        either!(self, wall => wall.top(id).await)
    }

    /// Changes the size of a process's terminal.
    pub async fn resize(&self, key: &ProcessKey, size: Resize) -> Result<(), Failure> {
        either!(self, wall => wall.resize(key, size).await)
    }

    /// The framed stream of a created process from offset 0. Called by the core exactly once per process, right after
    /// its creation and before its start.
    pub async fn output(&self, key: &ProcessKey) -> Result<FramedOutput, Failure> {
        either!(self, wall => wall.output(key).await)
    }

    /// Writes to a process's stdin; returns when the bytes are accepted (back-pressure). `WrongState` once the process no
    /// longer reads or stdin is closed.
    pub async fn write_stdin(&self, key: &ProcessKey, data: Bytes) -> Result<(), Failure> {
        either!(self, wall => wall.write_stdin(key, data).await)
    }

    /// Closes a process's stdin; closing it again is no error.
    pub async fn close_stdin(&self, key: &ProcessKey) -> Result<(), Failure> {
        either!(self, wall => wall.close_stdin(key).await)
    }

    /// How a started process ended, once it has. The core sets `finished_at_ns` and `output_bytes`. Called once per started
    /// process. A machine that dies is an `Exit` with `error` set, and the end of every `FramedOutput`.
    pub async fn wait(&self, key: &ProcessKey) -> Exit {
        either!(self, wall => wall.wait(key).await)
    }

    /// Ends everything: gracefully until the deadline, then by force. Returns when machine or namespaces are gone. May be
    /// called again and in every state.
    pub async fn stop(&self, deadline: Duration) -> Result<(), Failure> {
        either!(self, wall => wall.stop(deadline).await)
    }

    /// Resolves when nothing is left of the wall, by `stop` or by itself (a machine that died or never came up: the
    /// cause). The os wall ends by `stop` only.
    pub async fn ended(&self) -> Result<(), Failure> {
        either!(self, wall => wall.ended().await)
    }

    /// Process id of the machine process, 0 for none.
    pub fn machine_pid(&self) -> u32 {
        either!(self, wall => wall.machine_pid())
    }
}
