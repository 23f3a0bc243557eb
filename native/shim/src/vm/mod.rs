//! The wall of a machine.

use crate::wall::{FramedOutput, ProcessKey, WallContext};
use bulkhead_protocol::{
    CreateContainer, CreateProcess, Exit, Failure, FailureCode, MachineConfig, Resize, SandboxConfig, Started,
};
use bytes::Bytes;
use std::time::Duration;

/// A machine and the connection to the agent in it. See `crate::wall::ActiveWall` for what each method promises.
pub struct VmWall {
    never: std::convert::Infallible,
}

#[allow(missing_docs, clippy::unused_async)]
impl VmWall {
    pub async fn start(_: &SandboxConfig, machine: &MachineConfig, _: WallContext) -> Result<Self, Failure> {
        let message = format!("this shim has no machine driver \"{}\"", machine.driver);
        Err(Failure::new(FailureCode::MachineFailed, message))
    }

    pub async fn create_container(&self, _: &str, _: CreateContainer) -> Result<(), Failure> {
        match self.never {}
    }

    pub async fn create_process(&self, _: &ProcessKey, _: CreateProcess) -> Result<(), Failure> {
        match self.never {}
    }

    pub async fn start_process(&self, _: &ProcessKey) -> Result<Started, Failure> {
        match self.never {}
    }

    pub async fn kill(&self, _: &ProcessKey, _: i32) -> Result<(), Failure> {
        match self.never {}
    }

    pub async fn resize(&self, _: &ProcessKey, _: Resize) -> Result<(), Failure> {
        match self.never {}
    }

    pub async fn output(&self, _: &ProcessKey) -> Result<FramedOutput, Failure> {
        match self.never {}
    }

    pub async fn write_stdin(&self, _: &ProcessKey, _: Bytes) -> Result<(), Failure> {
        match self.never {}
    }

    pub async fn close_stdin(&self, _: &ProcessKey) -> Result<(), Failure> {
        match self.never {}
    }

    pub async fn wait(&self, _: &ProcessKey) -> Exit {
        match self.never {}
    }

    pub async fn stop(&self, _: Duration) -> Result<(), Failure> {
        match self.never {}
    }

    pub async fn ended(&self) -> Result<(), Failure> {
        match self.never {}
    }

    pub fn machine_pid(&self) -> u32 {
        match self.never {}
    }
}
