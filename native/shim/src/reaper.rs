//! The one waiter for child processes.
//!
//! The shim is a subreaper, so besides its own children it becomes the parent of what those leave behind (runc's `create`
//! leaves the container's init). One `waitpid(-1)` per SIGCHLD serves all; nothing else in this process may wait for a
//! child, tokio's and std's child handles included.

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// How a child ended, in the shell's convention: its exit code, or 128 + the signal that killed it.
pub type ExitCode = i32;

#[derive(Default)]
struct State {
    awaited: HashMap<i32, oneshot::Sender<ExitCode>>,
    /// Ended children that nobody asked for yet. Kept only while an [`Adoption`] is open.
    unclaimed: HashMap<i32, ExitCode>,
    adoptions: usize,
}

/// A handle of the one waiter; a clone is another handle of the same.
#[derive(Clone)]
pub struct Reaper(Arc<Mutex<State>>);

/// A child that was spawned by [`Reaper::spawn`] or adopted by [`Adoption::claim`].
#[derive(Debug)]
pub struct Child {
    /// Its process id; valid until `wait` has returned.
    pub pid: u32,
    ended: oneshot::Receiver<ExitCode>,
}

impl Child {
    /// Waits for its end.
    pub async fn wait(&mut self) -> ExitCode {
        (&mut self.ended).await.unwrap_or(255)
    }
}

/// While it lives, the ends of unknown children are remembered, so that a child that was left to us and ended before its
/// id was known can still be claimed.
pub struct Adoption(Reaper);

impl Adoption {
    /// Registers interest in the child `pid` that was left to this process.
    pub fn claim(&self, pid: u32) -> Child {
        self.0.register(pid)
    }
}

impl Drop for Adoption {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.adoptions -= 1;
        if state.adoptions == 0 {
            state.unclaimed = HashMap::new();
        }
    }
}

impl Reaper {
    /// Makes the process a subreaper and starts the waiter on the current tokio runtime.
    pub fn start() -> std::io::Result<Self> {
        nix::sys::prctl::set_child_subreaper(true)?;
        let reaper = Self(Arc::default());
        let mut child_signals = signal(SignalKind::child())?;
        let waiter = reaper.clone();
        tokio::spawn(async move {
            loop {
                waiter.reap();
                if child_signals.recv().await.is_none() {
                    return;
                }
            }
        });
        Ok(reaper)
    }

    /// Starts a child. It is killed (SIGKILL) when the shim dies, unless it undoes that itself. Call it on the runtime's thread
    /// only: the kernel ties that signal to the thread.
    pub fn spawn(&self, command: &mut Command) -> std::io::Result<Child> {
        // SAFETY: prctl is async-signal-safe and touches no memory.
        unsafe {
            command.pre_exec(|| {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0 {
                    Ok(())
                } else {
                    Err(std::io::Error::last_os_error())
                }
            });
        }
        // Held over the spawn, so that the child cannot be reaped before it is registered.
        let mut state = self.lock();
        let pid = command.spawn()?.id();
        let (sender, ended) = oneshot::channel();
        state.awaited.insert(pid.cast_signed(), sender);
        Ok(Child { pid, ended })
    }

    /// Opens a period in which children that were left to this process can be claimed.
    pub fn adopt(&self) -> Adoption {
        self.lock().adoptions += 1;
        Adoption(self.clone())
    }

    fn register(&self, pid: u32) -> Child {
        let (sender, ended) = oneshot::channel();
        let mut state = self.lock();
        match state.unclaimed.remove(&pid.cast_signed()) {
            Some(code) => {
                let _ = sender.send(code);
            }
            None => {
                state.awaited.insert(pid.cast_signed(), sender);
            }
        }
        Child { pid, ended }
    }

    fn reap(&self) {
        loop {
            let mut state = self.lock();
            let (pid, code) = match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid.as_raw(), code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid.as_raw(), 128 + signal as i32),
                Ok(WaitStatus::StillAlive) => return,
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(_) => return,
            };
            match state.awaited.remove(&pid) {
                Some(sender) => {
                    let _ = sender.send(code);
                }
                None if state.adoptions > 0 => {
                    state.unclaimed.insert(pid, code);
                }
                None => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
