//! The sandbox: its containers and what can be asked of them.

mod ending;
mod running;

use crate::cgroup::{Cgroup, enable_controllers, open_cgroup_of};
use crate::failure::{Doing, Result, internal, invalid, wrong_state};
use crate::guest;
use crate::launch::{Launch, Target, launch};
use crate::layers::LayerStack;
use crate::moments::{Moment, Moments};
use crate::process::Process;
use crate::reaper::Reaper;
use crate::rootfs::MountedRoot;
use crate::spec::{ProcessSpec, Spec};
use bulkhead_protocol::{
    ContainerStatus, CreateContainer, CreateProcess, Failure, FailureCode, GENERATION, GuestIdentity, INIT,
    SandboxStatus, Started,
};
use nix::errno::Errno;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

/// Processes of one container that are remembered; finished ones make room for new ones.
const MAX_PROCESSES: usize = 1024;

/// How the agent runs.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// It is PID 1 of a machine and owns all of it.
    pub is_pid_1: bool,
    /// A directory that is every container's root, in place of the disks.
    pub root_directory: Option<String>,
    /// For short-lived files.
    pub run_directory: String,
}

/// One container.
struct Container {
    namespaces: libc::c_int,
    ephemeral: bool,
    root: RefCell<Option<MountedRoot>>,
    processes: RefCell<HashMap<String, Rc<Process>>>,
}

/// The sandbox.
pub(crate) struct Sandbox {
    settings: Settings,
    reaper: Reaper,
    containers: RefCell<BTreeMap<String, Option<Rc<Container>>>>,
    /// Layers that are mounted for the next container.
    kept_layers: RefCell<Option<LayerStack>>,
    /// What the guest is now.
    identity: RefCell<Option<GuestIdentity>>,
    controllers_enabled: Cell<bool>,
    stopping: Cell<bool>,
}

impl Sandbox {
    /// An empty one.
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            reaper: Reaper::default(),
            containers: RefCell::default(),
            kept_layers: RefCell::default(),
            identity: RefCell::default(),
            controllers_enabled: Cell::new(false),
            stopping: Cell::new(false),
        }
    }

    /// Collects ended processes for ever.
    pub(crate) async fn reap(&self) -> std::io::Result<()> {
        self.reaper.run().await
    }

    /// Makes a container up to its first process, which waits for its start.
    pub(crate) async fn create_container(
        self: &Rc<Self>,
        id: &str,
        request: CreateContainer,
        moments: &mut Moments,
    ) -> Result<()> {
        check_name(id)?;
        let slot = {
            let mut containers = self.containers.borrow_mut();
            if self.stopping.get() {
                return Err(wrong_state("the sandbox is stopping"));
            }
            if containers.contains_key(id) {
                return Err(wrong_state(format!("container {id} exists")));
            }
            // The name is taken while it is being made.
            containers.insert(id.to_owned(), None);
            containers.len() - 1
        };
        match self.build_container(id, slot, request, moments).await {
            Ok(container) => {
                self.containers.borrow_mut().insert(id.to_owned(), Some(Rc::new(container)));
                Ok(())
            }
            Err(failure) => {
                self.containers.borrow_mut().remove(id);
                Err(failure)
            }
        }
    }

    async fn build_container(
        self: &Rc<Self>,
        id: &str,
        slot: usize,
        request: CreateContainer,
        moments: &mut Moments,
    ) -> Result<Container> {
        let spec = Spec::parse(request.spec)?;
        moments.mark("guest-parsed");
        if let Some(identity) = &request.guest
            && self.settings.is_pid_1
        {
            guest::apply(identity, moments).await?;
            *self.identity.borrow_mut() = Some(identity.clone());
        }
        let mut root = match &self.settings.root_directory {
            Some(_) => None,
            None => {
                let kept = self.kept_layers.borrow_mut().take();
                let layers = match kept {
                    Some(layers) if layers.holds(&request.rootfs.layers) => layers,
                    other => {
                        if let Some(other) = other {
                            other.unmount();
                        }
                        LayerStack::mount(slot, &request.rootfs.layers).await?
                    }
                };
                moments.mark("guest-layers");
                let root = MountedRoot::mount(slot, layers, request.ephemeral).await?;
                moments.mark("guest-root");
                Some(root)
            }
        };
        let root_path = match (&root, &self.settings.root_directory) {
            (Some(root), _) => root.path.clone(),
            (None, Some(directory)) => directory.clone(),
            (None, None) => return Err(internal("root", Errno::ENOENT)),
        };
        let files = write_files(&self.files_directory(id), &request.files)?;
        let cgroup = if self.settings.is_pid_1 {
            if !self.controllers_enabled.replace(true) {
                enable_controllers();
            }
            Some(Rc::new(Cgroup::create(id, &spec.linux.resources)?))
        } else {
            None
        };
        moments.mark("guest-cgroup");
        let launched = launch(&Launch {
            target: Target::Init {
                spec: &spec,
                root: &root_path,
                bind_root: root.is_none(),
                files: &files,
                read_only: request.rootfs.read_only,
            },
            process: &spec.process,
            user: &request.user,
            additional_groups: &request.additional_groups,
            stdin: request.stdin,
            terminal_size: request.terminal_size,
            cgroup: cgroup.as_ref().map(|cgroup| cgroup.open()).transpose()?,
            die_with_agent: !self.settings.is_pid_1,
        });
        let made = match launched {
            Ok(launched) => self.adopt(format!("container {id}"), launched, cgroup.clone(), request.stdin).await,
            Err(failure) => Err(failure),
        };
        let made = made.map(|(process, steps)| {
            moments.take(steps);
            process
        });
        moments.mark("guest-process");
        match made {
            Ok(init) => Ok(Container {
                namespaces: spec.namespace_flags(),
                ephemeral: request.ephemeral,
                root: RefCell::new(root),
                processes: RefCell::new(HashMap::from([(INIT.to_owned(), init)])),
            }),
            Err(failure) => {
                if let Some(root) = root.take() {
                    root.unmount();
                }
                if let Some(cgroup) = cgroup {
                    cgroup.remove();
                }
                Err(failure)
            }
        }
    }

    fn files_directory(&self, id: &str) -> String {
        format!("{}/files-{id}", self.settings.run_directory)
    }

    /// Watches a new child and waits until it is set up. `cgroup` is given for a container's first process.
    async fn adopt(
        &self,
        name: String,
        launched: crate::launch::Launched,
        cgroup: Option<Rc<Cgroup>>,
        stdin: bool,
    ) -> Result<(Rc<Process>, Vec<Moment>)> {
        let process = Process::new(name, launched)?;
        self.reaper.watch(&process, move |process, exit_code| {
            let oom_killed = cgroup.as_ref().is_some_and(|cgroup| {
                cgroup.kill();
                let oom_killed = cgroup.oom_killed();
                cgroup.remove();
                oom_killed
            });
            process.ended(exit_code, oom_killed);
        });
        match process.ready(stdin).await {
            Ok(moments) => Ok((process, moments)),
            Err(failure) => {
                // It may be stuck in its set-up, for example by an error on this side.
                let _ = process.kill(libc::SIGKILL);
                process.wait_gone().await;
                Err(failure)
            }
        }
    }

    /// Makes a further process in a running container.
    pub(crate) async fn create_process(&self, id: &str, name: &str, request: CreateProcess) -> Result<()> {
        check_name(name)?;
        let container = self.container(id)?;
        let init = container.process(id, INIT)?;
        if init.exit().is_some() || !init.is_started() {
            return Err(wrong_state(format!("container {id} is not running")));
        }
        if container.processes.borrow().contains_key(name) {
            return Err(wrong_state(format!("process {name} of container {id} exists")));
        }
        let spec = ProcessSpec::parse(request.process)?;
        let pidfd = open_pidfd(init.pid).map_err(|_| wrong_state(format!("container {id} is not running")))?;
        let launched = launch(&Launch {
            target: Target::Exec { init: pidfd.as_fd(), namespaces: container.namespaces },
            process: &spec,
            user: &request.user,
            additional_groups: &[],
            stdin: request.stdin,
            terminal_size: request.terminal_size,
            cgroup: if self.settings.is_pid_1 { open_cgroup_of(init.pid) } else { None },
            die_with_agent: !self.settings.is_pid_1,
        })?;
        let (process, _) =
            self.adopt(format!("process {name} of container {id}"), launched, None, request.stdin).await?;
        let mut processes = container.processes.borrow_mut();
        if processes.len() >= MAX_PROCESSES {
            processes.retain(|key, process| key == INIT || process.exit().is_none());
        }
        processes.insert(name.to_owned(), process);
        Ok(())
    }

    /// Lets a process run.
    pub(crate) async fn start(&self, id: &str, name: &str) -> Result<Started> {
        let process = self.process(id, name)?;
        Ok(Started { pid: process.start().await? })
    }

    /// A process of a container.
    pub(crate) fn process(&self, id: &str, name: &str) -> Result<Rc<Process>> {
        self.container(id)?.process(id, name)
    }

    fn container(&self, id: &str) -> Result<Rc<Container>> {
        match self.containers.borrow().get(id) {
            Some(Some(container)) => Ok(Rc::clone(container)),
            Some(None) => Err(wrong_state(format!("container {id} is being made"))),
            None => Err(Failure::new(FailureCode::NotFound, format!("no such container: {id}"))),
        }
    }

    /// What there is.
    pub(crate) fn status(&self) -> SandboxStatus {
        let containers = self.containers.borrow();
        let known = containers.iter().filter_map(|(id, container)| {
            let init = container.as_ref()?.processes.borrow().get(INIT).cloned()?;
            let exit = init.exit();
            let state = match (&exit, init.is_started()) {
                (Some(_), _) => "exited",
                (None, true) => "running",
                (None, false) => "created",
            };
            let pid = if init.is_started() { init.pid.unsigned_abs() } else { 0 };
            Some((id.clone(), ContainerStatus { state: state.to_owned(), pid, paused: false, exit }))
        });
        SandboxStatus {
            generation: GENERATION,
            state: if self.stopping.get() { "stopped" } else { "running" }.to_owned(),
            shim_pid: 0,
            machine_pid: 0,
            containers: known.collect(),
            ports: Vec::new(),
            phases: Vec::new(),
        }
    }
}

impl Container {
    fn process(&self, id: &str, name: &str) -> Result<Rc<Process>> {
        self.processes
            .borrow()
            .get(name)
            .cloned()
            .ok_or_else(|| Failure::new(FailureCode::NotFound, format!("container {id} has no process {name}")))
    }
}

fn open_pidfd(pid: i32) -> nix::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: takes numbers and returns a new descriptor, which belongs to nobody else.
    unsafe {
        let fd = Errno::result(libc::syscall(libc::SYS_pidfd_open, pid, 0))?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

/// Ids become file names (cgroups, directories).
fn check_name(name: &str) -> Result<()> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > 128 || name.starts_with('.') || !name.bytes().all(fine) {
        return Err(invalid(format!("{name:?} is not an id")));
    }
    Ok(())
}

/// Writes the files that cover some of the root's; returns (file in the guest, path in the root).
fn write_files(directory: &str, files: &BTreeMap<String, String>) -> Result<Vec<(String, String)>> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    std::fs::create_dir_all(directory).doing(|| directory)?;
    files
        .iter()
        .enumerate()
        .map(|(index, (path, content))| {
            if !path.starts_with('/') {
                return Err(invalid(format!("{path:?} is not an absolute path")));
            }
            let file = format!("{directory}/{index}");
            std::fs::write(&file, content).doing(|| path.clone())?;
            Ok((file, path.clone()))
        })
        .collect()
}
