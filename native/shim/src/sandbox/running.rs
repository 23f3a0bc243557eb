//! What can be asked of a container while it runs: to stand still, to have other limits, what it uses and what runs in it.

use super::Sandbox;
use crate::wall::ProcessKey;
use bulkhead_protocol::{ContainerStats, Failure, FailureCode, ProcessList, UpdateContainer};

impl Sandbox {
    /// All processes stand still.
    pub async fn pause(&self, id: &str) -> Result<(), Failure> {
        self.require_running(id)?;
        self.require_unpaused(id)?;
        self.0.wall.pause(id).await?;
        self.lock().paused.insert(id.to_owned());
        Ok(())
    }

    /// They run again.
    pub async fn unpause(&self, id: &str) -> Result<(), Failure> {
        self.require_running(id)?;
        if !self.lock().paused.contains(id) {
            return Err(Failure::new(FailureCode::WrongState, format!("container {id} is not paused")));
        }
        self.0.wall.unpause(id).await?;
        self.lock().paused.remove(id);
        Ok(())
    }

    /// Other limits.
    pub async fn update(&self, id: &str, request: UpdateContainer) -> Result<(), Failure> {
        self.require_running(id)?;
        self.0.wall.update(id, request).await
    }

    /// What it has used.
    pub async fn stats(&self, id: &str) -> Result<ContainerStats, Failure> {
        self.require_running(id)?;
        self.0.wall.stats(id).await
    }

    /// Its processes.
    pub async fn top(&self, id: &str) -> Result<ProcessList, Failure> {
        self.require_running(id)?;
        self.0.wall.top(id).await
    }

    /// Before something new is made in it.
    pub(super) fn require_unpaused(&self, id: &str) -> Result<(), Failure> {
        if self.lock().paused.contains(id) {
            return Err(Failure::new(FailureCode::WrongState, format!("container {id} is paused")));
        }
        Ok(())
    }

    /// Lets a container run that is to die.
    pub(super) async fn wake(&self, id: &str) {
        if self.lock().paused.remove(id)
            && let Err(cause) = self.0.wall.unpause(id).await
        {
            // As a rule it is gone by then.
            eprintln!("container {id}: waking it for its end: {cause}");
        }
    }

    fn require_running(&self, id: &str) -> Result<(), Failure> {
        self.process(&ProcessKey::init(id))?.require_running()
    }
}
