//! Starting a process of a container: the agent's side. The process is a fork of the agent (no program to load, and its
//! code is already translated under emulation); it sets itself up, reports on a pipe, and waits for the word to start.

use crate::child;
use crate::failure::{Doing, Result, internal};
use crate::moments::Moment;
use crate::output::Stream;
use crate::spec::{ProcessSpec, Spec};
use bulkhead_protocol::{Failure, FailureCode, Resize};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use tokio::io::unix::AsyncFd;

/// From linux/sched.h; the libc crate's constant is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Longest report of a child, bytes.
const MAX_REPORT_BYTES: usize = 64 * 1024;

/// Everything that a child needs to become a container's process.
pub(crate) struct Launch<'a> {
    pub target: Target<'a>,
    pub process: &'a ProcessSpec,
    /// As in the protocol's `user` and `additional_groups`.
    pub user: &'a str,
    pub additional_groups: &'a [String],
    pub stdin: bool,
    pub terminal_size: Option<Resize>,
    pub cgroup: Option<OwnedFd>,
    /// The child dies with the agent; for an agent that is not PID 1.
    pub die_with_agent: bool,
}

/// Where the process belongs.
pub(crate) enum Target<'a> {
    /// A container's first process, which makes the namespaces.
    Init {
        spec: &'a Spec,
        root: &'a str,
        /// The root is a plain directory, not a mount.
        bind_root: bool,
        /// File in the guest → path in the root.
        files: &'a [(String, String)],
        read_only: bool,
    },
    /// A further one in the namespaces of a running process.
    Exec { init: BorrowedFd<'a>, namespaces: libc::c_int },
}

/// What a child says on its pipe, one JSON line each.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// Everything stands; the master's descriptor number in the child, for a terminal, and when the steps were done.
    Ready { master: Option<i32>, moments: Vec<Moment> },
    /// It ends here.
    Failed(Failure),
}

/// A child that was made.
pub(crate) struct Launched {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub reports: ReportPipe,
    pub start: OwnedFd,
    /// Ends of pipes; none for a terminal, whose master comes later.
    pub stdin: Option<OwnedFd>,
    pub outputs: Vec<(Stream, OwnedFd)>,
}

/// The child's ends.
pub(crate) struct ChildEnds {
    pub reports: OwnedFd,
    pub start: OwnedFd,
    /// Standard input, output, error; none for a terminal.
    pub stdio: Option<[OwnedFd; 3]>,
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC).doing(|| "pipe")
}

/// Makes the child. It returns once the child exists; how far that got is told by its reports.
pub(crate) fn launch(launch: &Launch<'_>) -> Result<Launched> {
    let (reports, child_reports) = pipe()?;
    let (child_start, start) = pipe()?;
    let (mut stdin, mut outputs, mut stdio) = (None, Vec::new(), None);
    if !launch.process.terminal {
        let input = if launch.stdin {
            let (child_end, own_end) = pipe()?;
            stdin = Some(own_end);
            child_end
        } else {
            std::fs::File::open("/dev/null").doing(|| "/dev/null")?.into()
        };
        let (stdout, child_stdout) = pipe()?;
        let (stderr, child_stderr) = pipe()?;
        outputs = vec![(Stream::Stdout, stdout), (Stream::Stderr, stderr)];
        stdio = Some([input, child_stdout, child_stderr]);
    }
    let ends = ChildEnds { reports: child_reports, start: child_start, stdio };
    let (pid, pidfd) = match launch.target {
        Target::Init { spec, .. } => clone(spec.namespace_flags(), launch, ends)?,
        Target::Exec { init, namespaces } if namespaces & libc::CLONE_NEWPID != 0 => {
            // Only children of this process go into the other pid namespace; it goes back right after.
            let own = std::fs::File::open("/proc/self/ns/pid").doing(|| "/proc/self/ns/pid")?;
            set_namespace(init.as_raw_fd(), libc::CLONE_NEWPID).doing(|| "entering the container")?;
            let cloned = clone(0, launch, ends);
            set_namespace(own.as_raw_fd(), libc::CLONE_NEWPID).doing(|| "leaving the container")?;
            cloned?
        }
        Target::Exec { .. } => clone(0, launch, ends)?,
    };
    Ok(Launched { pid, pidfd, reports: ReportPipe::new(reports)?, start, stdin, outputs })
}

pub(crate) fn set_namespace(fd: i32, kind: libc::c_int) -> nix::Result<()> {
    // SAFETY: setns takes two numbers.
    Errno::result(unsafe { libc::setns(fd, kind) }).map(drop)
}

fn clone(namespaces: libc::c_int, launch: &Launch<'_>, ends: ChildEnds) -> Result<(i32, OwnedFd)> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: a structure of integers, for which all zeros is valid.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    // A new cgroup namespace is rooted where its maker is, so the child makes it once it is in its group.
    arguments.flags = (namespaces & !libc::CLONE_NEWCGROUP) as u64 | libc::CLONE_PIDFD as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.pidfd = &raw mut pidfd as u64;
    if let Some(cgroup) = &launch.cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM and with no stack given this is a fork; this process has one thread, so the child's copy
    // of memory is whole and no lock in it is held.
    let pid =
        Errno::result(unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) })
            .map_err(|errno| internal("making a process", errno))?;
    if pid == 0 {
        child::run(launch, ends);
    }
    // SAFETY: the kernel stored a new descriptor that belongs to nobody else.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok((pid as i32, pidfd))
}

/// The reading end of a child's reports.
pub(crate) struct ReportPipe {
    pipe: AsyncFd<OwnedFd>,
    unread: Vec<u8>,
}

impl ReportPipe {
    fn new(pipe: OwnedFd) -> Result<Self> {
        Ok(Self { pipe: register(pipe)?, unread: Vec::new() })
    }

    /// The next report, or none when the child closed its end (by executing its program, or by dying).
    pub(crate) async fn next(&mut self) -> Result<Option<Report>> {
        loop {
            if let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(|error| Failure::new(FailureCode::Internal, format!("a child's report: {error}")));
            }
            let mut buffer = [0; 1024];
            let count = read(&self.pipe, &mut buffer).await.doing(|| "a child's report")?;
            if count == 0 {
                return Ok(None);
            }
            self.unread.extend_from_slice(&buffer[..count]);
            if self.unread.len() > MAX_REPORT_BYTES {
                return Err(Failure::new(FailureCode::Internal, "a child's report is too long"));
            }
        }
    }
}

/// Makes a descriptor non-blocking and known to the event loop.
pub(crate) fn register(fd: OwnedFd) -> Result<AsyncFd<OwnedFd>> {
    let flags = nix::fcntl::fcntl(&fd, nix::fcntl::F_GETFL).doing(|| "fcntl")?;
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(&fd, nix::fcntl::F_SETFL(flags)).doing(|| "fcntl")?;
    // SAFETY: the descriptor is owned by what is registered.
    let registered = unsafe { AsyncFd::register(fd) };
    registered.map_err(io::Error::from).doing(|| "event loop")
}

/// Reads what is there, waiting for it.
pub(crate) async fn read(fd: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        let mut guard = fd.readable().await?;
        match guard.try_io(|fd| nix::unistd::read(fd, buffer).map_err(io::Error::from)) {
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(result) => return result,
            Err(_would_block) => {}
        }
    }
}

/// Writes all of it, waiting for room.
pub(crate) async fn write_all(fd: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut guard = fd.writable().await?;
        match guard.try_io(|fd| nix::unistd::write(fd, bytes).map_err(io::Error::from)) {
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(result) => bytes = &bytes[result?..],
            Err(_would_block) => {}
        }
    }
    Ok(())
}
