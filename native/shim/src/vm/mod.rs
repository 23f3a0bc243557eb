//! The wall of a machine: one jailed QEMU process, and the connection to the agent in its guest.
//!
//! The machine is started without knowing its container, with null devices in its disk slots; a container's layers and
//! scratch disk are put into the slots through the monitor while the guest comes up. It comes up by booting or, much sooner, from
//! a saved state; one that waits in a pool has come up already.

mod agent;
mod arguments;
mod cgroup;
mod coming_up;
mod console;
mod disks;
mod identity;
mod jail;
mod layers;
mod machine;
mod monitor;
mod pool;
mod ram_file;
mod running;
mod saved;
mod slots;
mod stdin;
mod tsc;

use crate::phases::{Phases, monotonic_ns};
use crate::wall::{FramedOutput, ProcessKey, WallContext};
use agent::{Agent, CallError, full};
use arguments::Beginning;
use bulkhead_protocol::{
    CreateContainer, CreateProcess, Exit, Failure, FailureCode, GuestIdentity, Kill, MachineConfig, Network, Resize,
    SandboxConfig, Started, StopSandbox,
};
use bytes::Bytes;
use coming_up::ComingUp;
use disks::Disks;
use http::Method;
use http_body_util::BodyExt as _;
use identity::new_identity;
use machine::Machine;
use monitor::Monitor;
use pool::Pooled;
pub use saved::make_template;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use stdin::Stdin;
use tokio::sync::{mpsc, watch};

/// How long a broken connection waits to learn whether the machine behind it has died.
const CAUSE_DEADLINE: Duration = Duration::from_secs(3);
/// Output chunks between the connection and the core.
const OUTPUT_CHUNKS_MAX: usize = 16;

/// Exit code of a process whose machine died under it.
const EXIT_CODE_UNKNOWN: i32 = 255;
/// Killed by SIGKILL, in the shell's convention.
const EXIT_CODE_KILLED: i32 = 137;

type Boot = Option<Result<Agent, Failure>>;

/// A machine and the connection to the agent in it. See `crate::wall::ActiveWall` for what each method promises.
pub struct VmWall {
    machine: Machine,
    monitor: Monitor,
    disks: Disks,
    /// A saved state is loaded: before that the disks cannot be changed.
    loaded: watch::Receiver<bool>,
    agent: watch::Receiver<Boot>,
    phases: Phases,
    pooled: Option<Pooled>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    hostname: String,
    network: Option<Network>,
    /// The identity was sent to the guest.
    identified: bool,
    /// The CPUs of a machine that waited do not run yet: until its disks are in place it has nothing to do, and QEMU answers sooner.
    stands_still: bool,
    /// Container id → whether its disk is thrown away with the sandbox.
    ephemeral: HashMap<String, bool>,
    stdin: HashMap<ProcessKey, StdinState>,
}

enum StdinState {
    Open(Stdin),
    Closed,
}

impl VmWall {
    /// Starts the machine. It returns once the process runs; requests wait for the guest.
    #[allow(clippy::unused_async)]
    pub async fn start(config: &SandboxConfig, machine: &MachineConfig, context: WallContext) -> Result<Self, Failure> {
        let WallContext { phases, reaper, network } = context;
        let (beginning, state) = match &machine.template {
            Some(template) => {
                let (ram, state) = saved::open(template, machine)?;
                ((Beginning::Restore, Some(ram)), Some(state))
            }
            None => ((Beginning::Boot, None), None),
        };
        let uid = machine.uid;
        let (machine, channels) = Machine::start(config, machine, beginning, network, &reaper)?;
        phases.mark("machine-spawned");
        let (sender, agent) = watch::channel(None);
        let (loaded_sender, loaded) = watch::channel(state.is_none());
        let coming_up = ComingUp {
            machine: machine.clone(),
            monitor: channels.monitor.clone(),
            state,
            loaded: loaded_sender,
            port: channels.agent,
            phases: phases.clone(),
        };
        tokio::spawn(async move {
            let boot = coming_up.run().await;
            sender.send_replace(Some(boot));
        });
        Ok(Self {
            disks: Disks::new(channels.monitor.clone()),
            monitor: channels.monitor,
            machine,
            loaded,
            agent,
            phases,
            pooled: config.pool.clone().map(|pool| Pooled::new(pool, uid)),
            state: Mutex::new(State {
                hostname: config.hostname.clone(),
                network: config.network.clone(),
                ..State::default()
            }),
        })
    }

    /// Puts the disks into their slots and has the agent build the container.
    pub async fn create_container(&self, id: &str, mut request: CreateContainer) -> Result<(), Failure> {
        if self.pool_state().is_some() {
            return Err(Failure::new(FailureCode::WrongState, "this machine waits for its assignment"));
        }
        request.guest = self.identity()?;
        self.state().ephemeral.insert(id.to_owned(), request.ephemeral);
        self.build_container(id, request).await
    }

    async fn build_container(&self, id: &str, mut request: CreateContainer) -> Result<(), Failure> {
        let path = container_path(id)?;
        // If the machine dies before, the agent's answer tells why.
        if self.loaded.clone().wait_for(|loaded| *loaded).await.is_ok() {
            if let Err(failure) = self.disks.assign(id, &request.rootfs, request.ephemeral).await {
                return Err(self.cause_of(failure).await);
            }
            self.phases.mark("disks-assigned");
        }
        if std::mem::take(&mut self.state().stands_still) {
            self.monitor.go_on().await?;
        }
        let agent = self.agent().await?;
        request.log = None;
        let asked_ns = monotonic_ns();
        let moments = self.settle(agent.create_container(&path, &request).await).await?;
        self.phases.take_moments(asked_ns, &moments);
        Ok(())
    }

    /// Prepares a further process.
    pub async fn create_process(&self, key: &ProcessKey, request: CreateProcess) -> Result<(), Failure> {
        let agent = self.agent().await?;
        self.settle(agent.tell(&process_path(key)?, &request).await).await
    }

    /// Starts a created process.
    pub async fn start_process(&self, key: &ProcessKey) -> Result<Started, Failure> {
        let agent = self.agent().await?;
        self.settle(agent.ask(Method::POST, &format!("{}/start", process_path(key)?)).await).await
    }

    /// Sends a signal to a started process.
    pub async fn kill(&self, key: &ProcessKey, signal: i32) -> Result<(), Failure> {
        let agent = self.agent().await?;
        self.settle(agent.tell(&format!("{}/kill", process_path(key)?), &Kill { signal }).await).await
    }

    /// Changes the size of a terminal.
    pub async fn resize(&self, key: &ProcessKey, size: Resize) -> Result<(), Failure> {
        let agent = self.agent().await?;
        self.settle(agent.tell(&format!("{}/resize", process_path(key)?), &size).await).await
    }

    /// The framed stream from offset 0. The agent keeps it from the process's first byte on, so its answer is not waited for.
    pub async fn output(&self, key: &ProcessKey) -> Result<FramedOutput, Failure> {
        let agent = self.agent().await?;
        let path = format!("{}/output?from=0&stdout=1&stderr=1", process_path(key)?);
        let (sender, receiver) = mpsc::channel(OUTPUT_CHUNKS_MAX);
        let phases = key.is_init().then(|| self.phases.clone());
        tokio::spawn(async move {
            let Ok(answer) = agent.open(Method::GET, &path, full(Bytes::new())).await else { return };
            let mut body = answer.into_body();
            // A broken connection ends the output; `wait` tells why.
            while let Some(Ok(frame)) = body.frame().await {
                let Ok(chunk) = frame.into_data() else { continue };
                if let Some(phases) = &phases {
                    phases.mark("first-output");
                }
                if sender.send(chunk).await.is_err() {
                    return;
                }
            }
        });
        Ok(receiver)
    }

    /// Writes to stdin.
    pub async fn write_stdin(&self, key: &ProcessKey, data: Bytes) -> Result<(), Failure> {
        let agent = self.agent().await?;
        let path = format!("{}/stdin", process_path(key)?);
        let closed = || Failure::new(FailureCode::WrongState, format!("the stdin of {key} is closed"));
        let stdin = {
            let mut state = self.state();
            let entry = state.stdin.entry(key.clone()).or_insert_with(|| StdinState::Open(Stdin::open(agent, path)));
            match entry {
                StdinState::Open(stdin) => stdin.clone(),
                StdinState::Closed => return Err(closed()),
            }
        };
        stdin.write(data).await.map_err(|stdin::Refused| closed())
    }

    /// Closes stdin.
    pub async fn close_stdin(&self, key: &ProcessKey) -> Result<(), Failure> {
        let agent = self.agent().await?;
        let path = format!("{}/stdin", process_path(key)?);
        let before = self.state().stdin.insert(key.clone(), StdinState::Closed);
        if before.is_none() {
            Stdin::close_unused(&agent, &path).await;
        }
        Ok(())
    }

    /// How a started process ended.
    pub async fn wait(&self, key: &ProcessKey) -> Exit {
        let answer = async {
            let agent = self.agent().await?;
            self.settle(agent.ask::<Exit>(Method::GET, &format!("{}/wait", process_path(key)?)).await).await
        };
        let exit = match answer.await {
            Ok(exit) => exit,
            Err(failure) => self.exit_of_a_broken_machine(&failure).await,
        };
        self.state().stdin.remove(key);
        exit
    }

    /// Ends the machine: the agent ends the containers and flushes their disks, then the process is killed.
    pub async fn stop(&self, deadline: Duration) -> Result<(), Failure> {
        self.machine.expect_end();
        let worth_flushing = {
            let state = self.state();
            !state.stands_still && state.ephemeral.values().any(|ephemeral| !ephemeral)
        };
        let ready = self.agent.borrow().as_ref().and_then(|boot| boot.as_ref().ok().cloned());
        if let Some(agent) = ready.filter(|_| worth_flushing) {
            let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
            let graceful = async {
                // The guest's power-off ends the process; its acknowledgement alone does not mean that.
                let _ = agent.tell("/v1/sandbox/stop", &StopSandbox { deadline_ms }).await;
                self.machine.ended().await;
            };
            let _ = tokio::time::timeout(deadline, graceful).await;
        }
        self.machine.kill();
        self.machine.ended().await;
        Ok(())
    }

    /// Resolves when the machine is gone.
    pub async fn ended(&self) -> Result<(), Failure> {
        match self.machine.ended().await.failure {
            // One that never came up has that to say, too.
            Some(failure) => Err(self.agent().await.err().unwrap_or(failure)),
            None => Ok(()),
        }
    }

    /// Process id of the machine process, 0 once it is gone.
    pub fn machine_pid(&self) -> u32 {
        self.machine.pid()
    }

    async fn agent(&self) -> Result<Agent, Failure> {
        let mut boot = self.agent.clone();
        let ready = boot.wait_for(Option::is_some).await.ok().and_then(|boot| boot.clone());
        ready.unwrap_or_else(|| {
            Err(Failure::new(FailureCode::MachineFailed, "the machine was given up while it started"))
        })
    }

    /// A monitor that fails, as a rule, is that of a dead machine: then its death is the cause.
    async fn cause_of(&self, failure: Failure) -> Failure {
        if failure.code != FailureCode::MachineFailed {
            return failure;
        }
        match tokio::time::timeout(CAUSE_DEADLINE, self.ended()).await {
            Ok(Err(cause)) => cause,
            Ok(Ok(())) | Err(_) => failure,
        }
    }

    /// What makes this machine this sandbox; with the first container only.
    fn identity(&self) -> Result<Option<GuestIdentity>, Failure> {
        let mut state = self.state();
        if std::mem::replace(&mut state.identified, true) {
            return Ok(None);
        }
        new_identity(&state.hostname, state.network.clone()).map(Some)
    }

    /// A broken connection means a dead machine, as a rule: then its death is the cause.
    async fn settle<T>(&self, result: Result<T, CallError>) -> Result<T, Failure> {
        match result {
            Ok(value) => Ok(value),
            Err(CallError::Refused(failure)) => Err(failure),
            Err(CallError::Broken(cause)) => {
                let end = tokio::time::timeout(CAUSE_DEADLINE, self.machine.ended()).await;
                Err(match end {
                    Ok(end) => {
                        end.failure.unwrap_or_else(|| Failure::new(FailureCode::WrongState, "the sandbox was stopped"))
                    }
                    Err(_) => Failure::new(
                        FailureCode::MachineFailed,
                        format!("the connection to the guest agent failed: {cause}"),
                    ),
                })
            }
        }
    }

    async fn exit_of_a_broken_machine(&self, failure: &Failure) -> Exit {
        let end = tokio::time::timeout(CAUSE_DEADLINE, self.machine.ended()).await.ok();
        // The first line is the cause, the others are tails.
        let cause = failure.message.lines().next().unwrap_or_default().to_owned();
        let (exit_code, error) = match end {
            // We ended it ourselves: the kill is the true end of everything in it.
            Some(machine::End { failure: None, .. }) => (EXIT_CODE_KILLED, String::new()),
            Some(machine::End { oom_killed: true, .. }) => (EXIT_CODE_KILLED, cause),
            _ => (EXIT_CODE_UNKNOWN, cause),
        };
        Exit { exit_code, oom_killed: false, finished_at_ns: 0, error, output_bytes: 0 }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for VmWall {
    fn drop(&mut self) {
        self.machine.kill();
    }
}

fn container_path(id: &str) -> Result<String, Failure> {
    Ok(format!("/v1/containers/{}", path_segment(id)?))
}

fn process_path(key: &ProcessKey) -> Result<String, Failure> {
    Ok(format!("{}/processes/{}", container_path(&key.container)?, path_segment(&key.process)?))
}

fn path_segment(word: &str) -> Result<&str, Failure> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !word.is_empty() && word.len() <= 128 && word.bytes().all(plain) {
        Ok(word)
    } else {
        let message = format!("\"{}\" is no id: letters, digits, - and _ only", word.escape_debug());
        Err(Failure::new(FailureCode::InvalidRequest, message))
    }
}
