//! The core: containers and processes of one sandbox, from their creation to the end of the shim.

mod ends;
mod health;
mod running;

use crate::exit_record::ExitRecord;
use crate::json_log::JsonLog;
use crate::network::ports::HeldPorts;
use crate::phases::Phases;
use crate::process::{Process, ProcessState};
use crate::wall::{ActiveWall, PoolState, ProcessKey};
use bulkhead_protocol::{
    Assignment, ContainerStatus, CreateContainer, CreateProcess, Failure, FailureCode, GENERATION, SandboxConfig,
    SandboxStatus, Started,
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Most containers of a sandbox, and most processes of all its containers.
const CONTAINERS_MAX: usize = 64;
const PROCESSES_MAX: usize = 1024;

/// A sandbox with its wall; a clone is another handle of the same.
#[derive(Clone)]
pub struct Sandbox(Arc<Inner>);

struct Inner {
    wall: ActiveWall,
    phases: Phases,
    record: Mutex<ExitRecord>,
    /// Serialises writers of the record.
    record_lock: tokio::sync::Mutex<()>,
    ports: Mutex<Option<HeldPorts>>,
    state: Mutex<State>,
    ended: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    /// A container that is being created has no process yet.
    processes: BTreeMap<(String, String), Option<Arc<Process>>>,
    ended_processes: VecDeque<ProcessKey>,
    closing: bool,
    /// Containers that are removed with their end: nobody asks for their exits after the host's crash.
    ephemeral: BTreeSet<String>,
    /// Containers whose processes stand still.
    paused: BTreeSet<String>,
    health: BTreeMap<String, health::Health>,
    ports: Vec<bulkhead_protocol::PortBinding>,
}

impl Sandbox {
    /// Takes over a started wall and held ports.
    pub fn new(config: &SandboxConfig, wall: ActiveWall, ports: HeldPorts, phases: Phases) -> Self {
        let state = State { ports: ports.bindings().to_vec(), ..State::default() };
        let sandbox = Self(Arc::new(Inner {
            wall,
            phases,
            record: Mutex::new(ExitRecord::new(Path::new(&config.state_dir))),
            record_lock: tokio::sync::Mutex::default(),
            ports: Mutex::new(Some(ports)),
            state: Mutex::new(state),
            ended: watch::Sender::new(false),
        }));
        let watched = sandbox.clone();
        tokio::spawn(async move {
            let cause = watched.0.wall.ended().await.err();
            watched.wall_ended(cause).await;
        });
        sandbox
    }

    /// What is the case.
    pub fn status(&self) -> SandboxStatus {
        let state = self.lock();
        let containers: BTreeMap<_, _> = state
            .processes
            .iter()
            .filter(|((_, process), _)| process == bulkhead_protocol::INIT)
            .filter_map(|((container, _), process)| {
                let paused = state.paused.contains(container);
                Some((container.clone(), ContainerStatus { paused, ..container_status(process.as_ref()?) }))
            })
            .collect();
        let name = match (*self.0.ended.borrow(), self.0.wall.pool_state(), containers.is_empty()) {
            (true, ..) => "stopped",
            (false, Some(PoolState::Warming), _) => "warming",
            (false, Some(PoolState::Waiting), _) => "waiting",
            (false, None, true) => "starting",
            (false, None, false) => "running",
        };
        SandboxStatus {
            generation: GENERATION,
            state: name.to_owned(),
            shim_pid: std::process::id(),
            machine_pid: self.0.wall.machine_pid(),
            containers,
            ports: state.ports.clone(),
            phases: self.0.phases.list(),
        }
    }

    /// Waits until a pooled machine waits; returns at once for any other sandbox.
    pub async fn warmed(&self) -> Result<(), Failure> {
        self.0.wall.warmed().await
    }

    /// Makes a waiting machine the sandbox of the assignment: ports are held, the network is joined, the CPUs run.
    pub async fn assign(&self, assignment: &Assignment) -> Result<(), Failure> {
        self.0.phases.begin("assign-requested");
        let address = assignment.network.as_ref().map(|network| network.ipv4_address.as_str());
        let ports = HeldPorts::hold(&assignment.ports, address)?;
        self.0.wall.assign(assignment).await?;
        let state_dir = Path::new(&assignment.state_dir);
        // A record of an earlier run of the same container would be taken for this one's.
        let _ = std::fs::remove_file(state_dir.join("exit.json"));
        *self.0.record.lock().unwrap_or_else(PoisonError::into_inner) = ExitRecord::new(state_dir);
        self.lock().ports = ports.bindings().to_vec();
        *self.lock_ports() = Some(ports);
        self.0.phases.mark("assigned");
        Ok(())
    }

    /// Creates a container and its init process.
    pub async fn create_container(&self, id: &str, request: CreateContainer) -> Result<(), Failure> {
        let key = ProcessKey::init(id);
        let reservation = self.reserve(&key)?;
        let terminal = wants_terminal(&request.spec["process"]);
        let stdin_once = request.stdin_once;
        let ephemeral = request.ephemeral;
        let log = match &request.log {
            Some(log) => JsonLog::open(log).map_err(|cause| {
                Failure::new(FailureCode::Internal, format!("container {id}: cannot open log {}: {cause}", log.path))
            })?,
            None => None,
        };
        self.0.phases.mark("create-requested");
        self.0.wall.create_container(id, request).await?;
        let stream = self.0.wall.output(&key).await?;
        self.0.phases.mark("container-created");
        if ephemeral {
            self.lock().ephemeral.insert(id.to_owned());
        }
        let phases = Some(self.0.phases.clone());
        reservation.fill(Process::new(key, terminal, stdin_once, stream, log, phases));
        Ok(())
    }

    /// Creates a further process in a running container.
    pub async fn create_process(&self, key: &ProcessKey, request: CreateProcess) -> Result<(), Failure> {
        if key.is_init() {
            let message = format!("{key}: the name is reserved for the container's own process");
            return Err(Failure::new(FailureCode::InvalidRequest, message));
        }
        self.process(&ProcessKey::init(&key.container))?.require_running()?;
        self.require_unpaused(&key.container)?;
        let reservation = self.reserve(key)?;
        let terminal = wants_terminal(&request.process);
        self.0.wall.create_process(key, request).await?;
        let stream = self.0.wall.output(key).await?;
        reservation.fill(Process::new(key.clone(), terminal, true, stream, None, None));
        Ok(())
    }

    /// Starts a created process. The first one also opens the held ports.
    pub async fn start(&self, key: &ProcessKey) -> Result<Started, Failure> {
        let process = self.process(key)?;
        process.begin_start()?;
        let started = self.0.wall.start_process(key).await;
        process.end_start(started.as_ref().ok().map(|started| started.pid));
        if started.is_err() && !key.is_init() {
            // What could not be started once is not kept: its descriptors are spent.
            process.output.end();
            self.lock().processes.remove(&map_key(key));
        }
        let started = started?;
        if key.is_init() {
            self.0.phases.mark("process-started");
            if let Some(ports) = &mut *self.lock_ports() {
                ports.forward();
            }
        }
        let sandbox = self.clone();
        tokio::spawn(async move { sandbox.follow(&process).await });
        Ok(started)
    }

    /// Sends a signal.
    pub async fn kill(&self, key: &ProcessKey, signal: i32) -> Result<(), Failure> {
        if !(1..=64).contains(&signal) {
            return Err(Failure::new(FailureCode::InvalidRequest, format!("{key}: there is no signal {signal}")));
        }
        self.process(key)?.require_running()?;
        self.0.wall.kill(key, signal).await?;
        if signal == libc::SIGKILL && key.is_init() {
            // A frozen process does not even die.
            self.wake(&key.container).await;
        }
        Ok(())
    }

    /// Sets a terminal's size.
    pub async fn resize(&self, key: &ProcessKey, size: bulkhead_protocol::Resize) -> Result<(), Failure> {
        let process = self.process(key)?;
        if !process.terminal {
            return Err(Failure::new(FailureCode::WrongState, format!("{key} has no terminal")));
        }
        if process.state() == ProcessState::Exited {
            return process.require_running();
        }
        self.0.wall.resize(key, size).await
    }

    /// Writes to stdin, with back-pressure.
    pub async fn write_stdin(&self, key: &ProcessKey, data: Bytes) -> Result<(), Failure> {
        if self.process(key)?.state() == ProcessState::Exited {
            return Err(Failure::new(FailureCode::WrongState, format!("{key} has ended")));
        }
        self.0.wall.write_stdin(key, data).await
    }

    /// Closes stdin.
    pub async fn close_stdin(&self, key: &ProcessKey) -> Result<(), Failure> {
        if self.process(key)?.state() == ProcessState::Exited {
            return Ok(());
        }
        self.0.wall.close_stdin(key).await
    }

    /// Ends everything and waits until it is told.
    pub async fn stop(&self, deadline: Duration) -> Result<(), Failure> {
        let paused: Vec<String> = self.lock().paused.iter().cloned().collect();
        for container in paused {
            self.wake(&container).await;
        }
        self.0.wall.stop(deadline).await?;
        self.ended().await;
        Ok(())
    }

    /// Waits until nothing runs and every exit is recorded.
    pub async fn ended(&self) {
        let _ = self.0.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Whether that is so.
    pub fn has_ended(&self) -> bool {
        *self.0.ended.borrow()
    }

    /// A process that was created.
    pub fn process(&self, key: &ProcessKey) -> Result<Arc<Process>, Failure> {
        let found = self.lock().processes.get(&map_key(key)).cloned();
        match found {
            Some(Some(process)) => Ok(process),
            Some(None) => Err(Failure::new(FailureCode::WrongState, format!("{key} is being created"))),
            None => Err(Failure::new(FailureCode::NotFound, format!("no such process: {key}"))),
        }
    }

    fn reserve(&self, key: &ProcessKey) -> Result<Reservation, Failure> {
        let mut state = self.lock();
        if *self.0.ended.borrow() || state.closing {
            return Err(Failure::new(FailureCode::WrongState, format!("{key}: the sandbox has ended")));
        }
        if state.processes.contains_key(&map_key(key)) {
            return Err(Failure::new(FailureCode::WrongState, format!("{key} exists")));
        }
        let containers = state.processes.keys().filter(|(_, process)| process == bulkhead_protocol::INIT).count();
        if state.processes.len() >= PROCESSES_MAX || (key.is_init() && containers >= CONTAINERS_MAX) {
            let message = format!("{key}: the sandbox holds {CONTAINERS_MAX} containers and {PROCESSES_MAX} processes");
            return Err(Failure::new(FailureCode::ResourceExhausted, message));
        }
        state.processes.insert(map_key(key), None);
        Ok(Reservation { sandbox: self.clone(), key: Some(map_key(key)) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_ports(&self) -> MutexGuard<'_, Option<HeldPorts>> {
        self.0.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name that is taken while its process is being created; given back unless it is filled.
struct Reservation {
    sandbox: Sandbox,
    key: Option<(String, String)>,
}

impl Reservation {
    fn fill(mut self, process: Process) {
        if let Some(key) = self.key.take() {
            self.sandbox.lock().processes.insert(key, Some(Arc::new(process)));
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.sandbox.lock().processes.remove(&key);
        }
    }
}

fn map_key(key: &ProcessKey) -> (String, String) {
    (key.container.clone(), key.process.clone())
}

fn wants_terminal(process: &serde_json::Value) -> bool {
    process["terminal"].as_bool().unwrap_or(false)
}

fn container_status(process: &Arc<Process>) -> ContainerStatus {
    let (state, pid) = match process.state() {
        ProcessState::Created | ProcessState::Starting => ("created", 0),
        ProcessState::Running { pid } => ("running", pid),
        ProcessState::Exited => ("exited", 0),
    };
    ContainerStatus { state: state.to_owned(), pid, paused: false, exit: process.exit() }
}
