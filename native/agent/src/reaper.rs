//! Collecting the dead: the agent's own children and, as PID 1, every orphan of the machine.

use crate::process::Process;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use tokio::signal::unix::{SignalKind, signal};

/// Called with the exit code of a process that ended.
type OnExit = Box<dyn FnOnce(&Rc<Process>, i32)>;

/// Who waits for which process.
#[derive(Default)]
pub(crate) struct Reaper {
    watched: RefCell<HashMap<i32, (Rc<Process>, OnExit)>>,
}

impl Reaper {
    /// Has `on_exit` called when the process ends. Must be called before the event loop runs again after its making.
    pub(crate) fn watch(&self, process: &Rc<Process>, on_exit: impl FnOnce(&Rc<Process>, i32) + 'static) {
        self.watched.borrow_mut().insert(process.pid, (Rc::clone(process), Box::new(on_exit)));
    }

    /// Collects for ever.
    pub(crate) async fn run(&self) -> std::io::Result<()> {
        let mut signals = signal(SignalKind::child())?;
        loop {
            self.collect();
            signals.recv().await;
        }
    }

    fn collect(&self) {
        loop {
            let mut status = 0;
            // SAFETY: waitpid writes one int.
            let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
            if pid <= 0 {
                return;
            }
            let exit_code = if libc::WIFSIGNALED(status) {
                128 + libc::WTERMSIG(status)
            } else if libc::WIFEXITED(status) {
                libc::WEXITSTATUS(status)
            } else {
                continue;
            };
            let watched = self.watched.borrow_mut().remove(&pid);
            if let Some((process, on_exit)) = watched {
                on_exit(&process, exit_code);
            }
        }
    }
}
