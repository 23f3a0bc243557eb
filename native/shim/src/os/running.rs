//! Running containers of the os wall: frozen and limited by runc, read by their cgroups.

use super::OsWall;
use bulkhead_protocol::{ContainerStats, Failure, FailureCode, ProcessList, UpdateContainer};
use std::path::Path;

impl OsWall {
    /// See [`crate::wall::ActiveWall::pause`].
    pub async fn pause(&self, id: &str) -> Result<(), Failure> {
        self.runc.call(["pause", id]).await
    }

    /// See [`crate::wall::ActiveWall::unpause`].
    pub async fn unpause(&self, id: &str) -> Result<(), Failure> {
        self.runc.call(["resume", id]).await
    }

    /// See [`crate::wall::ActiveWall::update`].
    pub async fn update(&self, id: &str, request: UpdateContainer) -> Result<(), Failure> {
        let file = self.container(id)?.bundle().join("update.json");
        write(&file, &request.resources)?;
        let updated = self.runc.call(["update".as_ref(), "--resources".as_ref(), file.as_os_str(), id.as_ref()]).await;
        let _ = std::fs::remove_file(&file);
        updated
    }

    /// See [`crate::wall::ActiveWall::stats`].
    #[allow(clippy::unused_async)]
    pub async fn stats(&self, id: &str) -> Result<ContainerStats, Failure> {
        bulkhead_accounting::read_stats(self.container(id)?.init_pid())
    }

    /// See [`crate::wall::ActiveWall::top`].
    #[allow(clippy::unused_async)]
    pub async fn top(&self, id: &str) -> Result<ProcessList, Failure> {
        bulkhead_accounting::list_processes(self.container(id)?.init_pid())
    }
}

fn write(file: &Path, resources: &serde_json::Value) -> Result<(), Failure> {
    std::fs::write(file, resources.to_string())
        .map_err(|cause| Failure::new(FailureCode::Internal, format!("{}: {cause}", file.display())))
}
