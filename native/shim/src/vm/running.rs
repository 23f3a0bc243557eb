//! Running containers of a machine: everything is asked of the agent in its guest; what the machine costs the host is read here.

use super::{VmWall, container_path};
use bulkhead_protocol::{ContainerStats, Failure, MachineUse, ProcessList, UpdateContainer};
use http::Method;

impl VmWall {
    /// See [`crate::wall::ActiveWall::pause`].
    pub async fn pause(&self, id: &str) -> Result<(), Failure> {
        self.order(id, "pause").await
    }

    /// See [`crate::wall::ActiveWall::unpause`].
    pub async fn unpause(&self, id: &str) -> Result<(), Failure> {
        self.order(id, "unpause").await
    }

    /// See [`crate::wall::ActiveWall::update`].
    pub async fn update(&self, id: &str, request: UpdateContainer) -> Result<(), Failure> {
        let agent = self.agent().await?;
        self.settle(agent.tell(&format!("{}/update", container_path(id)?), &request).await).await
    }

    /// See [`crate::wall::ActiveWall::stats`].
    pub async fn stats(&self, id: &str) -> Result<ContainerStats, Failure> {
        let agent = self.agent().await?;
        let path = format!("{}/stats", container_path(id)?);
        let stats: ContainerStats = self.settle(agent.ask(Method::GET, &path).await).await?;
        let pid = self.machine_pid();
        let machine = (pid != 0).then(|| MachineUse {
            pss_bytes: bulkhead_accounting::proportional_memory(pid),
            cpu_ns: bulkhead_accounting::cpu_time_of(pid),
        });
        Ok(ContainerStats { machine, ..stats })
    }

    /// See [`crate::wall::ActiveWall::top`].
    pub async fn top(&self, id: &str) -> Result<ProcessList, Failure> {
        let agent = self.agent().await?;
        self.settle(agent.ask(Method::GET, &format!("{}/top", container_path(id)?)).await).await
    }

    async fn order(&self, id: &str, action: &str) -> Result<(), Failure> {
        let agent = self.agent().await?;
        self.settle(agent.tell(&format!("{}/{action}", container_path(id)?), &serde_json::json!({})).await).await
    }
}
