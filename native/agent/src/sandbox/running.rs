//! What can be asked of a container while it runs: to stand still, to have other limits, what it uses and what runs in it.

use super::Sandbox;
use crate::cgroup::Cgroup;
use crate::failure::{Result, wrong_state};
use bulkhead_protocol::{ContainerStats, INIT, ProcessList, UpdateContainer};

impl Sandbox {
    /// All processes stand still, or run again.
    pub(crate) async fn freeze(&self, id: &str, frozen: bool) -> Result<()> {
        self.running_group(id)?.freeze(frozen).await
    }

    /// Other limits, as far as the machine reaches.
    pub(crate) fn update(&self, id: &str, request: UpdateContainer) -> Result<()> {
        self.running_group(id)?.update(request.resources)
    }

    /// What it has used.
    pub(crate) fn stats(&self, id: &str) -> Result<ContainerStats> {
        bulkhead_accounting::read_stats(self.running_pid(id)?)
    }

    /// Its processes.
    pub(crate) fn top(&self, id: &str) -> Result<ProcessList> {
        bulkhead_accounting::list_processes(self.running_pid(id)?)
    }

    fn running_pid(&self, id: &str) -> Result<u32> {
        let init = self.process(id, INIT)?;
        if init.exit().is_some() || !init.is_started() {
            return Err(wrong_state(format!("container {id} is not running")));
        }
        Ok(init.pid.unsigned_abs())
    }

    fn running_group(&self, id: &str) -> Result<Cgroup> {
        self.running_pid(id)?;
        if !self.settings.is_pid_1 {
            return Err(wrong_state("this agent does not own the cgroups: it is not PID 1 of a machine"));
        }
        Ok(Cgroup::of_container(id))
    }
}
