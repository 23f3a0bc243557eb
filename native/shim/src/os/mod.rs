//! The wall of namespaces: runc on the host's kernel.

use crate::wall::{FramedOutput, ProcessKey, WallContext};
use bulkhead_protocol::{
    CreateContainer, CreateProcess, Exit, Failure, FailureCode, OsConfig, Resize, SandboxConfig, Started,
};
use bytes::Bytes;
use std::time::Duration;

/// Containers run by runc. See `crate::wall::ActiveWall` for what each method promises.
pub struct OsWall {
    never: std::convert::Infallible,
}

#[allow(missing_docs, clippy::unused_async)]
impl OsWall {
    pub async fn start(_: &SandboxConfig, os: &OsConfig, _: WallContext) -> Result<Self, Failure> {
        Err(Failure::new(FailureCode::Internal, format!("{} is not driven yet", os.runc_path)))
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
