//! The wall of namespaces: runc on the host's kernel.
//!
//! Everything a sandbox has on the host hangs on this process: mounts in its mount namespace, the network namespace by a
//! descriptor, pipes and terminals. What does not die with it if it is killed by force is the container's own processes:
//! the daemon finds them by the cgroup that the spec names.

mod cgroup;
mod console;
mod container;
mod mounts;
mod runc;
mod running;
mod spec;
mod stdio;
pub mod user;

use crate::phases::Phases;
use crate::reaper::Reaper;
use crate::wall::{FramedOutput, NetworkHandle, ProcessKey, WallContext};
use bulkhead_protocol::{
    CreateContainer, CreateProcess, Exit, Failure, FailureCode, OsConfig, Resize, SandboxConfig, Started, WallConfig,
};
use bytes::Bytes;
use container::{Container, OsProcess};
pub use mounts::enter_mount_namespace;
use runc::Runc;
use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{RwLock, watch};

/// After SIGKILL, how long a process may take to be gone.
const KILLED: Duration = Duration::from_secs(10);

/// Undoes what a sandbox of this wall has mounted, at the very end of the process.
pub fn leave(config: &SandboxConfig) {
    if let WallConfig::Os { .. } = config.wall {
        mounts::unmount_below(Path::new(&config.runtime_dir));
    }
}

/// Containers run by runc. See `crate::wall::ActiveWall` for what each method promises.
pub struct OsWall {
    runtime_dir: PathBuf,
    runc: Runc,
    reaper: Reaper,
    phases: Phases,
    network: Mutex<Option<OwnedFd>>,
    processes: Mutex<HashMap<ProcessKey, Arc<OsProcess>>>,
    containers: Mutex<HashMap<String, Arc<Container>>>,
    /// Read by what brings something up, written by what takes all down; true once all is down.
    life: RwLock<bool>,
    ended: watch::Sender<bool>,
}

impl OsWall {
    /// See [`crate::wall::ActiveWall::start`].
    #[allow(clippy::unused_async)]
    pub async fn start(config: &SandboxConfig, os: &OsConfig, context: WallContext) -> Result<Self, Failure> {
        let runtime_dir = PathBuf::from(&config.runtime_dir);
        let NetworkHandle::Namespace(network) = context.network else {
            return Err(Failure::new(FailureCode::Internal, "the os wall needs a network namespace"));
        };
        std::fs::create_dir_all(runtime_dir.join("empty"))
            .map_err(|cause| Failure::new(FailureCode::Internal, format!("{}: {cause}", runtime_dir.display())))?;
        Ok(Self {
            runc: Runc::new(&os.runc_path, &runtime_dir, context.reaper.clone()),
            runtime_dir,
            reaper: context.reaper,
            phases: context.phases,
            network: Mutex::new(Some(network)),
            processes: Mutex::default(),
            containers: Mutex::default(),
            life: RwLock::new(false),
            ended: watch::Sender::new(false),
        })
    }

    /// See [`crate::wall::ActiveWall::create_container`].
    pub async fn create_container(&self, id: &str, request: CreateContainer) -> Result<(), Failure> {
        let _up = self.enter().await?;
        let network = {
            let network = self.network.lock().unwrap_or_else(PoisonError::into_inner);
            let descriptor = network.as_ref().map_or(-1, AsRawFd::as_raw_fd);
            format!("/proc/{}/fd/{descriptor}", std::process::id())
        };
        let (container, init) =
            Container::create(id, &request, &self.runtime_dir, &network, &self.runc, &self.reaper, &self.phases)
                .await?;
        lock(&self.containers).insert(id.to_owned(), Arc::new(container));
        lock(&self.processes).insert(ProcessKey::init(id), init);
        Ok(())
    }

    /// See [`crate::wall::ActiveWall::create_process`].
    pub async fn create_process(&self, key: &ProcessKey, request: CreateProcess) -> Result<(), Failure> {
        let _up = self.enter().await?;
        let process = self.container(&key.container)?.prepare_process(&request)?;
        lock(&self.processes).insert(key.clone(), process);
        Ok(())
    }

    /// See [`crate::wall::ActiveWall::start_process`].
    pub async fn start_process(&self, key: &ProcessKey) -> Result<Started, Failure> {
        let _up = self.enter().await?;
        let process = self.process(key)?;
        let container = self.container(&key.container)?;
        if key.is_init() {
            return container.start(&process, &self.runc).await;
        }
        let started = container.start_process(&process, &self.runc, &self.reaper).await;
        if started.is_err() {
            process.abandon();
            lock(&self.processes).remove(key);
        }
        started
    }

    /// See [`crate::wall::ActiveWall::kill`].
    #[allow(clippy::unused_async)]
    pub async fn kill(&self, key: &ProcessKey, signal: i32) -> Result<(), Failure> {
        self.process(key)?.signal(signal)
    }

    /// See [`crate::wall::ActiveWall::resize`].
    #[allow(clippy::unused_async)]
    pub async fn resize(&self, key: &ProcessKey, size: Resize) -> Result<(), Failure> {
        self.process(key)?.stdio.resize(size)
    }

    /// See [`crate::wall::ActiveWall::output`].
    #[allow(clippy::unused_async)]
    pub async fn output(&self, key: &ProcessKey) -> Result<FramedOutput, Failure> {
        let output = self.process(key)?.stdio.take_output();
        output.ok_or_else(|| Failure::new(FailureCode::WrongState, format!("{key}: its output was taken before")))
    }

    /// See [`crate::wall::ActiveWall::write_stdin`].
    pub async fn write_stdin(&self, key: &ProcessKey, data: Bytes) -> Result<(), Failure> {
        self.process(key)?.stdio.write(&data).await
    }

    /// See [`crate::wall::ActiveWall::close_stdin`].
    pub async fn close_stdin(&self, key: &ProcessKey) -> Result<(), Failure> {
        self.process(key)?.stdio.close().await;
        Ok(())
    }

    /// See [`crate::wall::ActiveWall::wait`].
    pub async fn wait(&self, key: &ProcessKey) -> Exit {
        let exit = match self.process(key) {
            Ok(process) => process.wait().await,
            Err(failure) => {
                Exit { exit_code: 255, oom_killed: false, finished_at_ns: 0, error: failure.message, output_bytes: 0 }
            }
        };
        if !key.is_init() {
            lock(&self.processes).remove(key);
        }
        exit
    }

    /// See [`crate::wall::ActiveWall::stop`].
    pub async fn stop(&self, deadline: Duration) -> Result<(), Failure> {
        if !deadline.is_zero() {
            let inits = self.inits();
            for init in &inits {
                // Before its start the init is runc's, which does not heed it.
                let signal = if init.is_started() { libc::SIGTERM } else { libc::SIGKILL };
                let _ = init.signal(signal);
            }
            let _ = tokio::time::timeout(deadline, all_ended(&inits)).await;
        }
        for init in self.inits() {
            let _ = init.signal(libc::SIGKILL);
        }
        // From here on nothing new comes up.
        let mut down = self.life.write().await;
        if *down {
            return Ok(());
        }
        let inits = self.inits();
        for init in &inits {
            let _ = init.signal(libc::SIGKILL);
        }
        let killed = tokio::time::timeout(KILLED, all_ended(&inits)).await.is_ok();
        let containers: Vec<_> = lock(&self.containers).values().cloned().collect();
        for container in containers {
            container.destroy(&self.runc).await;
        }
        for process in lock(&self.processes).values() {
            process.abandon();
        }
        self.network.lock().unwrap_or_else(PoisonError::into_inner).take();
        *down = true;
        self.ended.send_replace(true);
        if killed {
            Ok(())
        } else {
            let message = "a container's init does not die: it hangs in the kernel";
            Err(Failure::new(FailureCode::TimedOut, message))
        }
    }

    /// See [`crate::wall::ActiveWall::ended`].
    pub async fn ended(&self) -> Result<(), Failure> {
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
        Ok(())
    }

    /// There is no machine.
    pub fn machine_pid(&self) -> u32 {
        0
    }

    async fn enter(&self) -> Result<tokio::sync::RwLockReadGuard<'_, bool>, Failure> {
        let down = self.life.read().await;
        if *down {
            return Err(Failure::new(FailureCode::WrongState, "the sandbox has ended"));
        }
        Ok(down)
    }

    fn process(&self, key: &ProcessKey) -> Result<Arc<OsProcess>, Failure> {
        let process = lock(&self.processes).get(key).cloned();
        process.ok_or_else(|| Failure::new(FailureCode::NotFound, format!("no such process: {key}")))
    }

    fn container(&self, id: &str) -> Result<Arc<Container>, Failure> {
        let container = lock(&self.containers).get(id).cloned();
        container.ok_or_else(|| Failure::new(FailureCode::NotFound, format!("no such container: {id}")))
    }

    fn inits(&self) -> Vec<Arc<OsProcess>> {
        let processes = lock(&self.processes);
        processes.iter().filter(|(key, _)| key.is_init()).map(|(_, process)| process.clone()).collect()
    }
}

async fn all_ended(processes: &[Arc<OsProcess>]) {
    for process in processes {
        process.wait().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
