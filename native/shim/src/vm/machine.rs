//! A running machine process: how it is made, how it dies, and what is cleaned up after it.

use crate::reaper::Reaper;
use crate::vm::arguments::{self, Beginning, INITRAMFS_IN_JAIL, KERNEL_IN_JAIL, MachineFds};
use crate::vm::cgroup::{CgroupLimits, MachineCgroup};
use crate::vm::console::{CONSOLE_BYTES_MAX, STDERR_BYTES_MAX, Tail, TailFile, keep_tail};
use crate::vm::jail::{self, Jail, JailSpec};
use crate::vm::monitor::Monitor;
use crate::vm::ram_file;
use crate::vm::tsc;
use crate::wall::NetworkHandle;
use bulkhead_protocol::{Failure, FailureCode, MachineConfig, SandboxConfig};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{PipeReader, pipe};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;

/// What the machine process takes beside the guest's RAM: QEMU itself, page tables, I/O buffers, and the page cache of what it
/// writes, which the kernel takes back under pressure.
const OVERHEAD_BYTES: u64 = 256 << 20;

const MEMORY_BYTES_MIN: u64 = 64 << 20;
const VCPUS_MAX: u32 = 64;

/// How a machine ended.
#[derive(Clone, Debug)]
pub struct End {
    /// What happened, with the tail of what the machine said; none if it was asked to end.
    pub failure: Option<Failure>,
    /// The host's OOM killer took the process.
    pub oom_killed: bool,
}

struct Shared {
    pid: u32,
    /// Set before the machine is told to end: its end is then no failure.
    ending: AtomicBool,
    ended: watch::Receiver<Option<End>>,
    /// Why we killed it.
    verdict: OnceLock<String>,
    console: Tail,
    console_file: TailFile,
}

/// A machine process; a clone is another handle of the same.
#[derive(Clone)]
pub struct Machine(Arc<Shared>);

/// The host's ends of a new machine's channels.
pub struct Channels {
    /// The agent port.
    pub agent: UnixStream,
    /// The monitor.
    pub monitor: Monitor,
}

fn failed(message: String) -> Failure {
    Failure::new(FailureCode::MachineFailed, message)
}

fn host_fault(step: &str) -> impl Fn(std::io::Error) -> Failure {
    move |error| failed(format!("{step} for the machine: {error}"))
}

impl Machine {
    /// Starts the process. It returns once QEMU is executed; whether the guest boots is seen at the agent port. `ram` is the file of a
    /// beginning that has one.
    pub fn start(
        config: &SandboxConfig,
        machine: &MachineConfig,
        (beginning, ram): (Beginning, Option<OwnedFd>),
        network: NetworkHandle,
        reaper: &Reaper,
    ) -> Result<(Self, Channels), Failure> {
        check(machine)?;
        let program = fs::canonicalize(&machine.qemu_path).map_err(|error| {
            failed(format!("QEMU at {}: {error}; install qemu-system-x86 or set its path", machine.qemu_path))
        })?;
        let NetworkHandle::Tap(tap) = network else {
            return Err(failed("a machine wants a tap, not a network namespace".into()));
        };

        let (agent, agent_theirs) = socket_pair()?;
        let (monitor, monitor_theirs) = socket_pair()?;
        let (console, console_theirs) = pipe().map_err(host_fault("a pipe"))?;
        let (stderr, stderr_theirs) = pipe().map_err(host_fault("a pipe"))?;
        let fds = MachineFds {
            agent: agent_theirs.as_raw_fd(),
            monitor: monitor_theirs.as_raw_fd(),
            console: console_theirs.as_raw_fd(),
            tap: tap.as_raw_fd(),
        };
        let ram_sockets = match &ram {
            Some(_) => Some(std::os::unix::net::UnixStream::pair().map_err(host_fault("a socket pair"))?),
            None => None,
        };
        let cgroup = MachineCgroup::create(&machine.cgroup_path, limits(machine))?;
        let root = Path::new(&config.runtime_dir).join("machine-root");
        let remains = Remains { cgroup, root };
        let ram_socket = ram_sockets.as_ref().map(|(_, theirs)| theirs.as_raw_fd());
        let spawned = remains.spawn(machine, &program, (beginning, &fds, ram_socket), stderr_theirs.into(), reaper);
        let child = match spawned {
            Ok(child) => child,
            Err(failure) => {
                let said = drain(stderr);
                // At once: this process may be about to end.
                remains.remove_unused();
                return Err(with_tail(failure, &[("it said", &said)]));
            }
        };
        drop((agent_theirs, monitor_theirs, console_theirs, tap));
        if let (Some((ours, _)), Some(ram)) = (&ram_sockets, ram) {
            let listener = ram_file::receive(ours.as_raw_fd()).map_err(host_fault("the RAM file's listener"))?;
            tokio::spawn(async move {
                if let Err(error) = ram_file::serve(listener, ram).await {
                    eprintln!("the machine's opens are answered no more: {error}");
                }
            });
        }

        let console_tail = Tail::new(CONSOLE_BYTES_MAX);
        let stderr_tail = Tail::new(STDERR_BYTES_MAX);
        let console_file = TailFile::new(Path::new(&config.state_dir).join("console.log"));
        let readers = [
            keep_tail(receiver(console)?, console_tail.clone(), console_file.clone()),
            keep_tail(receiver(stderr)?, stderr_tail.clone(), TailFile::default()),
        ];
        let monitor = Monitor::start(monitor);
        let (sender, ended) = watch::channel(None);
        let this = Self(Arc::new(Shared {
            pid: child.pid,
            ending: AtomicBool::new(false),
            ended,
            verdict: OnceLock::new(),
            console: console_tail.clone(),
            console_file,
        }));

        let (machine, shutdowns) = (this.clone(), monitor.clone());
        tokio::spawn(async move {
            let mut child = child;
            let code = tokio::select! {
                code = child.wait() => code,
                () = shutdowns.halted() => {
                    machine.condemn("the machine's CPUs stopped by themselves (the accelerator cannot run this guest)");
                    child.wait().await
                }
            };
            for reader in readers {
                // Both streams end with the process; a moment covers what is still in them.
                let _ = tokio::time::timeout(Duration::from_secs(1), reader).await;
            }
            let oom_killed = remains.cgroup.oom_kills() > 0;
            remains.remove().await;
            let failure = (!machine.0.ending.load(Ordering::Relaxed)).then(|| {
                let verdict = machine.0.verdict.get().cloned();
                let cause =
                    verdict.unwrap_or_else(|| describe(code, oom_killed, shutdowns.shutdown_reason().as_deref()));
                let tails =
                    [("QEMU said", stderr_tail.last_lines()), ("its console ends with", console_tail.last_lines())];
                with_tail(failed(cause), &tails.each_ref().map(|(title, text)| (*title, text.as_str())))
            });
            sender.send_replace(Some(End { failure, oom_killed }));
        });
        Ok((this, Channels { agent, monitor }))
    }

    /// Process id of the machine process, 0 once it has ended.
    pub fn pid(&self) -> u32 {
        if self.0.ended.borrow().is_none() { self.0.pid } else { 0 }
    }

    /// The console's file is in another directory from now on.
    pub fn move_console(&self, state_dir: &Path) {
        self.0.console_file.move_to(state_dir.join("console.log"), &self.0.console);
    }

    /// From now on the machine's end is no failure.
    pub fn expect_end(&self) {
        self.0.ending.store(true, Ordering::Relaxed);
    }

    /// Kills the process, whatever it does. Its end is then no failure.
    pub fn kill(&self) {
        self.expect_end();
        self.signal();
    }

    /// Kills a process that is no good: its end is a failure, with this cause.
    pub fn condemn(&self, cause: &str) {
        let _ = self.0.verdict.set(cause.to_owned());
        self.signal();
    }

    fn signal(&self) {
        // The process is reaped only by the task that then sets `ended`, on this thread, so the id is still its own.
        if self.0.ended.borrow().is_none() {
            let _ = kill(Pid::from_raw(self.0.pid.cast_signed()), Signal::SIGKILL);
        }
    }

    /// Waits for the end of the process and of the cleaning after it.
    pub async fn ended(&self) -> End {
        let mut ended = self.0.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(End { failure: None, oom_killed: false }),
            Err(_) => End { failure: Some(failed("the machine's keeper is gone".into())), oom_killed: false },
        }
    }
}

/// What a machine process leaves behind.
struct Remains {
    cgroup: MachineCgroup,
    root: PathBuf,
}

impl Remains {
    fn spawn(
        &self,
        machine: &MachineConfig,
        program: &Path,
        (beginning, fds, ram_socket): (Beginning, &MachineFds, Option<RawFd>),
        stderr: OwnedFd,
        reaper: &Reaper,
    ) -> Result<crate::reaper::Child, Failure> {
        match fs::create_dir(&self.root) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(failed(format!("{}: {error}", self.root.display())));
            }
            _ => {}
        }
        let boot =
            [(machine.kernel_path.as_str(), KERNEL_IN_JAIL), (machine.initramfs_path.as_str(), INITRAMFS_IN_JAIL)];
        let jail = Jail::plan(JailSpec {
            root: &self.root,
            program,
            files: if beginning == Beginning::Restore { &[] } else { &boot },
            kvm: !arguments::is_emulated(machine),
            uid: machine.uid,
            cgroup_procs: self.cgroup.open_procs()?,
            keep: vec![fds.agent, fds.monitor, fds.console, fds.tap],
            ram_socket,
        })?;
        let boots = beginning != Beginning::Restore;
        let tsc_khz = (boots && arguments::is_emulated(machine)).then(tsc::host_tsc_khz).flatten();
        let mut command = Command::new(program);
        command
            .args(arguments::qemu_arguments(machine, fds, beginning, tsc_khz))
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(stderr));
        // SAFETY: `enter` allocates nothing, takes no lock, and makes only system calls.
        unsafe { command.pre_exec(move || jail.enter()) };
        reaper
            .spawn(&mut command)
            .map_err(|error| failed(format!("the machine process {} cannot be started: {error}", program.display())))
    }

    /// Of a process that never was.
    fn remove_unused(&self) {
        self.cgroup.remove_empty();
        let _ = fs::remove_dir(&self.root);
    }

    async fn remove(&self) {
        self.cgroup.remove().await;
        // The root was mounted on it in the process's own mount namespace only.
        let _ = fs::remove_dir(&self.root);
    }
}

fn check(machine: &MachineConfig) -> Result<(), Failure> {
    let refuse = |message: String| Err(Failure::new(FailureCode::InvalidRequest, message));
    if machine.driver != "qemu" {
        return refuse(format!("this shim has no machine driver \"{}\"; it has qemu", machine.driver));
    }
    if !matches!(machine.accelerator.as_str(), "kvm" | "tcg") {
        return refuse(format!("no accelerator \"{}\": kvm or tcg", machine.accelerator));
    }
    if machine.uid == 0 {
        return refuse("a machine process does not run as root: set its uid".into());
    }
    if !(1..=VCPUS_MAX).contains(&machine.vcpus) {
        return refuse(format!("{} vCPUs: 1 to {VCPUS_MAX} are possible", machine.vcpus));
    }
    if machine.memory_bytes < MEMORY_BYTES_MIN {
        return refuse(format!("{} bytes of RAM are too few: at least 64 MiB", machine.memory_bytes));
    }
    for (what, path) in [("guest kernel", &machine.kernel_path), ("initramfs", &machine.initramfs_path)] {
        match fs::metadata(path) {
            Ok(facts) if facts.is_file() => {}
            Ok(_) => return Err(failed(format!("the {what} {path} is not a file"))),
            Err(error) => return Err(failed(format!("the {what} {path}: {error}"))),
        }
    }
    Ok(())
}

fn limits(machine: &MachineConfig) -> CgroupLimits {
    let cache = if arguments::is_emulated(machine) { arguments::TRANSLATION_CACHE_BYTES } else { 0 };
    CgroupLimits {
        memory_bytes: machine.memory_bytes.saturating_add(OVERHEAD_BYTES + cache),
        threads: jail::THREADS_MAX,
    }
}

fn socket_pair() -> Result<(UnixStream, OwnedFd), Failure> {
    let pair = || {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((UnixStream::from_std(ours)?, theirs.into()))
    };
    pair().map_err(host_fault("a socket pair"))
}

fn receiver(pipe: PipeReader) -> Result<Receiver, Failure> {
    Receiver::from_owned_fd(pipe.into()).map_err(host_fault("a pipe"))
}

/// What the process wrote before it failed to start. Its end of the pipe is closed by then.
fn drain(stderr: PipeReader) -> String {
    let mut said = String::new();
    let _ = std::io::Read::read_to_string(&mut std::io::Read::take(stderr, STDERR_BYTES_MAX as u64), &mut said);
    said.trim().to_owned()
}

fn describe(code: i32, oom_killed: bool, shutdown: Option<&str>) -> String {
    match (code, shutdown) {
        (137, _) if oom_killed => "the machine process was killed by the host's OOM killer (signal 9)".into(),
        (0, Some("guest-reset")) => "the guest reset itself (a kernel panic ends that way)".into(),
        (0, Some(reason)) => format!("the machine ended by itself ({reason})"),
        (0, None) => "the machine process ended by itself".into(),
        (code @ 129..=192, _) => format!("the machine process was killed (signal {})", code - 128),
        (code, _) => format!("the machine process exited with code {code}"),
    }
}

fn with_tail(mut failure: Failure, tails: &[(&str, &str)]) -> Failure {
    for (title, text) in tails {
        if !text.is_empty() {
            failure.message = format!("{}\n{title}:\n{text}", failure.message);
        }
    }
    failure
}
