//! The end of a container in its machine, and of the machine.

use super::{Container, Sandbox};
use crate::failure::{Result, wrong_state};
use crate::guest;
use crate::process::Process;
use bulkhead_protocol::{INIT, RemoveContainer, StopSandbox};
use std::rc::Rc;
use std::time::Duration;

impl Sandbox {
    /// Takes an ended container away, so that the machine fits the next one as if there had been none.
    pub(crate) fn remove_container(&self, id: &str, request: &RemoveContainer) -> Result<()> {
        let container = self.container(id)?;
        if container.process(id, INIT)?.exit().is_none() {
            return Err(wrong_state(format!("container {id} has not ended")));
        }
        self.containers.borrow_mut().remove(id);
        if let Some(root) = container.root.borrow_mut().take() {
            let layers = root.into_layers();
            if request.keep_layers {
                *self.kept_layers.borrow_mut() = Some(layers);
            } else {
                layers.unmount();
            }
        }
        let _ = std::fs::remove_dir_all(self.files_directory(id));
        match self.identity.borrow_mut().take() {
            Some(identity) => guest::forget(&identity),
            None => Ok(()),
        }
    }

    /// Ends every process and puts the writable parts to rest. Afterwards the machine can be switched off.
    pub(crate) async fn stop(&self, request: &StopSandbox) {
        self.stopping.set(true);
        let containers: Vec<Rc<Container>> = self.containers.borrow().values().flatten().cloned().collect();
        let deadline = Duration::from_millis(request.deadline_ms.max(1));
        let _ = tokio::time::timeout(deadline, async {
            for container in &containers {
                let processes: Vec<Rc<Process>> = container.processes.borrow().values().cloned().collect();
                for process in &processes {
                    let _ = process.kill(libc::SIGKILL);
                }
                for process in processes {
                    process.wait_gone().await;
                }
            }
        })
        .await;
        let kept: Vec<_> = containers.iter().filter(|container| !container.ephemeral).collect();
        for container in &kept {
            if let Some(root) = &mut *container.root.borrow_mut() {
                root.unmount_writable();
            }
        }
        if !kept.is_empty() && self.settings.is_pid_1 {
            // For what could not be unmounted; after a clean unmount there is nothing left to write.
            nix::unistd::sync();
        }
    }
}
