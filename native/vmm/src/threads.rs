//! The kinds of threads, and how each begins.

use crate::error::{Error, Result};
use std::sync::Arc;
use std::thread::JoinHandle;

/// What a thread is there for; each kind needs other system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadKind {
    /// The process's first thread: monitor and supervision.
    Monitor,
    /// One vCPU.
    Vcpu,
    /// Disks.
    Disk,
    /// Network, console ports, entropy.
    Stream,
}

/// Called in each new thread before it does anything else; the place to confine it. An error ends the process: a thread that
/// could not be confined must not run.
pub type ThreadStart = Arc<dyn Fn(ThreadKind) -> std::result::Result<(), String> + Send + Sync>;

/// Starts a thread of a kind.
pub(crate) fn spawn(
    kind: ThreadKind,
    name: String,
    start: &ThreadStart,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>> {
    let start = Arc::clone(start);
    std::thread::Builder::new()
        .name(name.clone())
        .spawn(move || {
            if let Err(reason) = start(kind) {
                eprintln!("bulkhead-vmm: a {kind:?} thread cannot be confined: {reason}");
                std::process::abort();
            }
            body();
        })
        .map_err(|cause| Error::system(format!("starting the thread {name}"), cause))
}
