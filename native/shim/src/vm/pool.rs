//! A machine that is made ready before anybody wants it, and then waits with its CPUs stopped.
//!
//! Under emulation most of a start's time goes into translating code that runs for the first time. So the machine runs a container
//! once or twice and takes it away again: afterwards the guest's kernel and the agent are translated. Whatever the warm-up was told
//! (entropy, names, addresses) is replaced at the assignment, before any code of the container to come runs.

use crate::priority;
use crate::vm::identity::new_identity;
use crate::vm::{VmWall, container_path, process_path};
use crate::wall::{PoolState, ProcessKey};
use bulkhead_protocol::{Assignment, Exit, Failure, FailureCode, Kill, Network, PoolConfig, RemoveContainer};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::agent::full;

/// Id of the container that warms up.
const WARM_UP: &str = "warm-up";
/// A program that goes on for longer than this has warmed up what it could.
const ROUND_LIMIT: Duration = Duration::from_millis(1500);
/// However busy the host is.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pool's side of a machine.
pub struct Pooled {
    config: PoolConfig,
    /// User of the machine process.
    uid: u32,
    /// None once it is assigned.
    state: Mutex<Option<PoolState>>,
}

impl Pooled {
    /// A machine that is about to warm up.
    pub fn new(config: PoolConfig, uid: u32) -> Self {
        Self { config, uid, state: Mutex::new(Some(PoolState::Warming)) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Option<PoolState>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VmWall {
    /// What a pooled machine without assignment does; none for all others.
    pub fn pool_state(&self) -> Option<PoolState> {
        self.pooled.as_ref().and_then(|pooled| *pooled.state())
    }

    /// Runs a pooled machine's warm-up and stops its CPUs. Called once, right after the start. A machine that does not come to its end in
    /// time is given up: it was seen that one in some hundred hangs.
    pub async fn warmed(&self) -> Result<(), Failure> {
        let Some(pooled) = &self.pooled else { return Ok(()) };
        let deadline = Duration::from_millis(pooled.config.deadline_ms);
        let result = tokio::select! {
            result = self.warm_up(&pooled.config) => result,
            () = used_up(self.machine.pid(), deadline) => {
                let message = format!("the machine was not ready to wait within {} ms", deadline.as_millis());
                Err(Failure::new(FailureCode::TimedOut, message))
            }
        };
        if let Err(failure) = result {
            self.machine.condemn(&failure.message);
            return Err(self.machine.ended().await.failure.unwrap_or(failure));
        }
        *pooled.state() = Some(PoolState::Waiting);
        Ok(())
    }

    async fn warm_up(&self, config: &PoolConfig) -> Result<(), Failure> {
        for _ in 0..config.rounds.max(1) {
            self.warm_up_once(config).await?;
        }
        self.monitor.stop().await
    }

    async fn warm_up_once(&self, config: &PoolConfig) -> Result<(), Failure> {
        let mut request = config.warm_up.clone();
        request.guest = Some(new_identity(WARM_UP, Some(nobodys_network()))?);
        request.ephemeral = true;
        let layers = request.rootfs.layers.clone();
        self.build_container(WARM_UP, request).await?;
        let agent = self.agent().await?;
        let process = process_path(&ProcessKey::init(WARM_UP))?;
        let output = format!("{process}/output?from=0&stdout=1&stderr=1");
        let answer = self.settle(agent.open(Method::GET, &output, full(Bytes::new())).await).await?;
        let drained = tokio::spawn(async move {
            let mut body = answer.into_body();
            while let Some(Ok(_)) = body.frame().await {}
        });
        let _: bulkhead_protocol::Started =
            self.settle(agent.ask(Method::POST, &format!("{process}/start")).await).await?;
        let wait = format!("{process}/wait");
        let ended = tokio::time::timeout(ROUND_LIMIT, agent.ask::<Exit>(Method::GET, &wait)).await;
        match ended {
            Ok(exit) => self.settle(exit).await.map(drop)?,
            Err(_) => {
                let kill = Kill { signal: libc::SIGKILL };
                // Refused if it has ended this moment; of a machine that broke the next request tells.
                let _ = agent.tell(&format!("{process}/kill"), &kill).await;
                self.settle(agent.ask::<Exit>(Method::GET, &wait).await).await.map(drop)?;
            }
        }
        let _ = drained.await;
        let removal = RemoveContainer { keep_layers: config.keep_layers };
        self.settle(agent.remove_container(&container_path(WARM_UP)?, &removal).await).await?;
        self.disks.release(config.keep_layers.then_some(&layers)).await
    }

    /// Makes a waiting machine the sandbox of the assignment.
    pub async fn assign(&self, assignment: &Assignment) -> Result<(), Failure> {
        let pooled = self.pooled.as_ref();
        let Some(pooled) = pooled.filter(|pooled| *pooled.state() == Some(PoolState::Waiting)) else {
            return Err(Failure::new(FailureCode::WrongState, "this machine does not wait for an assignment"));
        };
        *pooled.state() = None;
        priority::step_forward(pooled.uid);
        if let Some(network) = &assignment.network {
            crate::network::join(network)?;
        }
        self.machine.move_console(Path::new(&assignment.state_dir));
        let mut state = self.state();
        state.stands_still = true;
        state.hostname.clone_from(&assignment.hostname);
        state.network.clone_from(&assignment.network);
        Ok(())
    }
}

/// Resolves when the process has had this much time, that which its threads and ours spent waiting for a CPU not counted: they run with a
/// low priority, and on a busy host that is no fault of their own. One that hangs waits for no CPU.
async fn used_up(pid: u32, deadline: Duration) {
    let begin = Instant::now();
    loop {
        let used = begin.elapsed().saturating_sub(waited(pid) + waited(std::process::id()));
        if used >= deadline || begin.elapsed() >= PATIENCE {
            return;
        }
        tokio::time::sleep(deadline.saturating_sub(used).max(Duration::from_millis(100))).await;
    }
}

/// How long the threads of a process have been ready to run and did not, in all (Linux, Documentation/scheduler/sched-stats.rst): they work by turns.
/// Zero where the kernel does not count it.
fn waited(pid: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let waits = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    Duration::from_nanos(waits.sum())
}

/// What the warm-up's interface is set to; the tap leads nowhere by then.
fn nobodys_network() -> Network {
    Network {
        bridge: String::new(),
        host_interface: String::new(),
        interface: "eth0".into(),
        mac_address: "02:00:00:00:00:02".into(),
        ipv4_address: "169.254.1.2".into(),
        ipv4_prefix_length: 30,
        ipv4_gateway: "169.254.1.1".into(),
        mtu: 1500,
    }
}
