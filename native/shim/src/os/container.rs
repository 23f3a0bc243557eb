//! One container of the os wall: its bundle, its root, and the processes that runc leaves to us.

use super::cgroup::OomCounter;
use super::console::ConsoleSocket;
use super::mounts;
use super::runc::{ChildStdio, Runc};
use super::spec::{self, Place};
use super::stdio::ProcessStdio;
use super::user::AccountFiles;
use crate::phases::Phases;
use crate::reaper::{Child, Reaper};
use bulkhead_protocol::{CreateContainer, CreateProcess, Exit, Failure, FailureCode, Started};
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// How long an init that waits for its start may take to wake.
const INIT_WAKES_MS: u16 = 1000;

/// A created container.
pub struct Container {
    id: String,
    bundle: PathBuf,
    init_pid: u32,
    oom: Option<OomCounter>,
    has_hooks: bool,
    /// Numbers the files of further processes.
    processes: AtomicU32,
}

/// A process of the os wall.
pub struct OsProcess {
    /// Our ends of its stdio.
    pub stdio: ProcessStdio,
    terminal: bool,
    exit: watch::Sender<Option<Exit>>,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    pid: u32,
    pidfd: Option<OwnedFd>,
    started: bool,
    /// What a further process is started with.
    pending: Option<(serde_json::Value, ChildStdio)>,
}

impl Container {
    /// Mounts the root, writes the bundle, and has runc bring up the init process.
    pub async fn create(
        id: &str,
        request: &CreateContainer,
        runtime_dir: &Path,
        network_namespace: &str,
        runc: &Runc,
        reaper: &Reaper,
        phases: &Phases,
    ) -> Result<(Self, Arc<OsProcess>), Failure> {
        // Twelve digits keep the socket's path short; two containers of one sandbox do not share them by chance.
        let bundle = runtime_dir.join(id.get(..12).unwrap_or(id));
        fs::create_dir(&bundle).map_err(|cause| {
            Failure::new(FailureCode::Internal, format!("container {id}: cannot make {}: {cause}", bundle.display()))
        })?;
        let created =
            Self::create_in(id, request, bundle.clone(), runtime_dir, network_namespace, runc, reaper, phases).await;
        if created.is_err() {
            // Mostly there is nothing to delete: runc undoes what it could not finish.
            let _ = runc.call(["delete", "--force", id]).await;
            remove_bundle(&bundle);
        }
        created
    }

    #[allow(clippy::too_many_arguments)]
    async fn create_in(
        id: &str,
        request: &CreateContainer,
        bundle: PathBuf,
        runtime_dir: &Path,
        network_namespace: &str,
        runc: &Runc,
        reaper: &Reaper,
        phases: &Phases,
    ) -> Result<(Self, Arc<OsProcess>), Failure> {
        let failed = |what: &str, cause: &dyn std::fmt::Display| {
            Failure::new(FailureCode::Internal, format!("container {id}: cannot {what}: {cause}"))
        };
        let root = bundle.join("rootfs");
        fs::create_dir(&root).map_err(|cause| failed("make its bundle", &cause))?;
        mounts::mount_root(&request.rootfs, request.ephemeral, &runtime_dir.join("empty"), &root)?;
        phases.mark("root-mounted");
        let files = write_files(&bundle, request).map_err(|cause| failed("write its files", &cause))?;
        let accounts = AccountFiles::read(open_directory(&root).map_err(|cause| failed("open its root", &cause))?)?;
        let place = Place { root: &root, network_namespace, files: &files };
        let spec = spec::container_spec(request, &accounts, &place)?;
        fs::write(bundle.join("config.json"), spec.to_string()).map_err(|cause| failed("write config.json", &cause))?;
        let terminal = spec["process"]["terminal"].as_bool().unwrap_or(false);
        let (stdio, child_stdio) = ProcessStdio::new(terminal, request.stdin, request.terminal_size)?;
        let process = Arc::new(OsProcess::new(stdio, terminal, None));
        let pid_file = bundle.join("pid");
        let arguments: Vec<OsString> = vec!["create".into(), "--bundle".into(), bundle.clone().into()];
        let launched = launch(runc, reaper, &process, arguments, &pid_file, &bundle.join("tty"), id, child_stdio).await;
        let child = launched?;
        phases.mark("runc-created");
        let container = Self {
            id: id.to_owned(),
            bundle,
            init_pid: child.pid,
            oom: OomCounter::of_process(child.pid),
            has_hooks: !spec["hooks"].is_null(),
            processes: AtomicU32::new(0),
        };
        process.follow(child, container.oom.clone());
        Ok((container, process))
    }

    /// The directory of its files.
    pub fn bundle(&self) -> &Path {
        &self.bundle
    }

    /// The host's number of its init process.
    pub fn init_pid(&self) -> u32 {
        self.init_pid
    }

    /// Lets the init process go.
    pub async fn start(&self, init: &OsProcess, runc: &Runc) -> Result<Started, Failure> {
        if self.has_hooks || !release_init(&runc.root().join(&self.id).join("exec.fifo")) {
            runc.call(["start", self.id.as_str()]).await?;
        }
        let mut running = init.lock();
        running.started = true;
        Ok(Started { pid: running.pid })
    }

    /// A further process, not yet started.
    pub fn prepare_process(&self, request: &CreateProcess) -> Result<Arc<OsProcess>, Failure> {
        // The container's own view: a volume may be mounted over /etc.
        let root = open_directory(Path::new(&format!("/proc/{}/root", self.init_pid)));
        let root = root.map_err(|cause| {
            Failure::new(FailureCode::WrongState, format!("container {} is not running: {cause}", self.id))
        })?;
        let process = spec::process_spec(request, &AccountFiles::read(root)?)?;
        let terminal = process["terminal"].as_bool().unwrap_or(false);
        let (stdio, child_stdio) = ProcessStdio::new(terminal, request.stdin, request.terminal_size)?;
        Ok(Arc::new(OsProcess::new(stdio, terminal, Some((process, child_stdio)))))
    }

    /// Starts it.
    pub async fn start_process(
        &self,
        process: &Arc<OsProcess>,
        runc: &Runc,
        reaper: &Reaper,
    ) -> Result<Started, Failure> {
        let pending = process.lock().pending.take();
        let Some((spec, stdio)) = pending else {
            return Err(Failure::new(FailureCode::WrongState, "the process was started before"));
        };
        let number = self.processes.fetch_add(1, Ordering::Relaxed);
        let file = |kind: &str| self.bundle.join(format!("{kind}-{number}"));
        let (process_file, pid_file) = (file("process"), file("pid"));
        fs::write(&process_file, spec.to_string()).map_err(|cause| {
            Failure::new(FailureCode::Internal, format!("container {}: cannot write a process: {cause}", self.id))
        })?;
        let arguments: Vec<OsString> =
            vec!["exec".into(), "--detach".into(), "--process".into(), process_file.clone().into()];
        let child = launch(runc, reaper, process, arguments, &pid_file, &file("tty"), &self.id, stdio).await;
        let _ = fs::remove_file(process_file);
        let _ = fs::remove_file(pid_file);
        let child = child?;
        process.lock().started = true;
        let started = Started { pid: child.pid };
        process.follow(child, None);
        Ok(started)
    }

    /// Takes away what is left after its init has ended.
    pub async fn destroy(&self, runc: &Runc) {
        // With --force it also kills what a container without a pid namespace of its own left in its cgroup.
        if let Err(cause) = runc.call(["delete", "--force", self.id.as_str()]).await {
            eprintln!("container {}: runc delete: {cause}", self.id);
        }
        remove_bundle(&self.bundle);
    }
}

impl OsProcess {
    fn new(stdio: ProcessStdio, terminal: bool, pending: Option<(serde_json::Value, ChildStdio)>) -> Self {
        let running = Mutex::new(Running { pending, ..Running::default() });
        Self { stdio, terminal, exit: watch::Sender::new(None), running }
    }

    /// Whether it was let go.
    pub fn is_started(&self) -> bool {
        self.lock().started
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) -> Result<(), Failure> {
        let running = self.lock();
        let not_running = || Failure::new(FailureCode::WrongState, "the process is not running");
        let pidfd = running.pidfd.as_ref().ok_or_else(not_running)?;
        // SAFETY: plain system call; the descriptor is open as long as `running` is locked.
        let outcome = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                pidfd.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        if outcome == 0 {
            return Ok(());
        }
        let cause = std::io::Error::last_os_error();
        if cause.raw_os_error() == Some(libc::ESRCH) {
            return Err(not_running());
        }
        let name = Signal::try_from(signal).map_or_else(|_| signal.to_string(), |signal| signal.to_string());
        Err(Failure::new(FailureCode::InvalidRequest, format!("cannot send signal {name}: {cause}")))
    }

    /// Waits for its end.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        let exit = exit.wait_for(Option::is_some).await.ok().and_then(|exit| exit.clone());
        exit.unwrap_or_else(|| ended_with(255, false))
    }

    /// It will not be started: its output is at its end.
    pub fn abandon(&self) {
        self.lock().pending = None;
        self.stdio.end();
    }

    fn follow(self: &Arc<Self>, child: Child, oom: Option<OomCounter>) {
        let process = self.clone();
        tokio::spawn(async move { process.until_the_end(child, oom).await });
    }

    async fn until_the_end(&self, mut child: Child, oom: Option<OomCounter>) {
        let code = child.wait().await;
        self.lock().pidfd = None;
        self.stdio.end();
        let oom_killed = oom.is_some_and(|oom| oom.struck());
        self.exit.send_replace(Some(ended_with(code, oom_killed)));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ended_with(exit_code: i32, oom_killed: bool) -> Exit {
    Exit { exit_code, oom_killed, finished_at_ns: 0, error: String::new(), output_bytes: 0 }
}

/// Runs `runc create` or `runc exec --detach`, and adopts the process that it leaves behind.
#[allow(clippy::too_many_arguments)]
async fn launch(
    runc: &Runc,
    reaper: &Reaper,
    process: &OsProcess,
    mut arguments: Vec<OsString>,
    pid_file: &Path,
    console_path: &Path,
    id: &str,
    stdio: ChildStdio,
) -> Result<Child, Failure> {
    arguments.extend(["--pid-file".into(), pid_file.into()]);
    let console = if process.terminal { Some(ConsoleSocket::bind(console_path)?) } else { None };
    if let Some(console) = &console {
        arguments.extend(["--console-socket".into(), console.path().into()]);
    }
    arguments.push(id.into());
    let adoption = reaper.adopt();
    let finished = runc.spawn(arguments, stdio)?.finish();
    match &console {
        None => finished.await?,
        Some(console) => {
            let mut finished = std::pin::pin!(finished);
            let master = tokio::select! {
                master = console.receive() => master?,
                outcome = &mut finished => {
                    outcome?;
                    return Err(Failure::new(FailureCode::Internal, "runc sent no terminal"));
                }
            };
            process.stdio.attach_terminal(master)?;
            finished.await?;
        }
    }
    let no_pid = |cause: &dyn std::fmt::Display| {
        Failure::new(FailureCode::Internal, format!("container {id}: cannot read {}: {cause}", pid_file.display()))
    };
    let pid = fs::read_to_string(pid_file).map_err(|cause| no_pid(&cause))?;
    let pid: u32 = pid.trim().parse().map_err(|cause| no_pid(&cause))?;
    // Opened before the child is claimed: until the reaper has collected it, the number is its own.
    let pidfd = pidfd_open(pid);
    let child = adoption.claim(pid);
    let mut running = process.lock();
    running.pid = pid;
    running.pidfd = pidfd;
    Ok(child)
}

/// Does what `runc start` does where there are no hooks, without another process (measured: 10 ms less of a start): a
/// created init waits in `open` of this fifo for a reader, and the fifo's absence means "running" to later calls of runc
/// (libcontainer `container_linux.go`, `exec` and `runType`). False if it is not as expected; then runc is to be asked.
fn release_init(fifo: &Path) -> bool {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(fifo);
    let Ok(file) = opened else { return false };
    if !file.metadata().is_ok_and(|facts| facts.file_type().is_fifo()) {
        return false;
    }
    // The open has woken the init; only what it writes shows that it was there.
    let mut ready = [nix::poll::PollFd::new(file.as_fd(), nix::poll::PollFlags::POLLIN)];
    let arrived = matches!(nix::poll::poll(&mut ready, INIT_WAKES_MS), Ok(1..));
    arrived && (&file).read(&mut [0; 1]).is_ok_and(|length| length == 1) && fs::remove_file(fifo).is_ok()
}

fn pidfd_open(pid: u32) -> Option<OwnedFd> {
    // SAFETY: plain system call; the descriptor it returns is new and owned by nobody else.
    unsafe {
        let descriptor = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        let descriptor = i32::try_from(descriptor).ok().filter(|descriptor| *descriptor >= 0)?;
        Some(OwnedFd::from_raw_fd(descriptor))
    }
}

/// The files that are put over the image's, as files of the bundle.
fn write_files(bundle: &Path, request: &CreateContainer) -> std::io::Result<Vec<(String, String)>> {
    let directory = bundle.join("files");
    fs::create_dir_all(&directory)?;
    let mut written = Vec::new();
    for (number, (inside, content)) in request.files.iter().enumerate() {
        let outside = directory.join(number.to_string());
        fs::write(&outside, content)?;
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o644))?;
        written.push((inside.clone(), outside.to_string_lossy().into_owned()));
    }
    Ok(written)
}

fn open_directory(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_PATH).open(path)
}

fn remove_bundle(bundle: &Path) {
    mounts::unmount_below(bundle);
    if let Err(cause) =
        crate::runtime_dir::identify(bundle).and_then(|identity| crate::runtime_dir::remove(bundle, identity))
    {
        eprintln!("cannot remove {}: {cause}", bundle.display());
    }
}
