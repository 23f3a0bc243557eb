//! A container's process, from the fork to the execution of its program. Nothing here returns to the agent's code: what
//! goes wrong is reported on the pipe, and the process ends.

use crate::command::{exec_failure, find_command};
use crate::failure::{Doing, Result, errno_text, internal, invalid};
use crate::in_root::ensure_directory;
use crate::launch::{ChildEnds, Launch, Report, Target, set_namespace};
use crate::moments::Moments;
use crate::mount_options::root_propagation;
use crate::privileges::{CapabilitySets, become_identity, set_no_new_privileges, set_rlimits};
use crate::spec::Spec;
use crate::terminal::{Terminal, mount_console, open_terminal, take_control};
use crate::users::{Identity, resolve_group, resolve_user};
use crate::{mounts, terminal};
use bulkhead_protocol::{Failure, FailureCode};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// passwd and group files are read up to this size.
const MAX_DATABASE_BYTES: u64 = 4 << 20;

/// Status with which a child ends that could not execute its program (nobody sees it but the reaper).
const SETUP_FAILED: i32 = 255;

/// Becomes the container's process.
pub(crate) fn run(launch: &Launch<'_>, ends: ChildEnds) -> ! {
    let reports = match lift(&ends.reports) {
        Ok(fd) => fd,
        Err(_) => end(),
    };
    if let Err(failure) = become_process(launch, ends, &reports) {
        report(&reports, &Report::Failed(failure));
    }
    end()
}

fn end() -> ! {
    // SAFETY: ends this process at once; nothing of the agent's may be run or flushed in it.
    unsafe { libc::_exit(SETUP_FAILED) }
}

fn report(reports: &OwnedFd, report: &Report) {
    let Ok(mut line) = serde_json::to_vec(report) else { end() };
    line.push(b'\n');
    let mut rest = line.as_slice();
    while !rest.is_empty() {
        match nix::unistd::write(reports, rest) {
            Ok(count) => rest = &rest[count..],
            Err(Errno::EINTR) => {}
            Err(_) => end(),
        }
    }
}

/// Moves a descriptor out of the way of 0 to 2.
fn lift(fd: &OwnedFd) -> nix::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    let lifted = nix::fcntl::fcntl(fd, nix::fcntl::F_DUPFD_CLOEXEC(64))?;
    // SAFETY: the descriptor was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(lifted) })
}

fn become_process(launch: &Launch<'_>, ends: ChildEnds, reports: &OwnedFd) -> Result<()> {
    restore_signals();
    if launch.die_with_agent {
        // SAFETY: a plain number.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) };
    }
    nix::unistd::setsid().doing(|| "setsid")?;
    if let Target::Exec { init, namespaces } = launch.target {
        set_namespace(init.as_raw_fd(), namespaces & !libc::CLONE_NEWPID).doing(|| "entering the container")?;
    }
    let start = keep_only(ends, reports)?;
    let mut moments = Moments::new();
    moments.mark("guest-forked");
    nix::sys::stat::umask(Mode::empty());
    let mut terminal = None;
    match &launch.target {
        Target::Init { spec, root, bind_root, files, read_only } => {
            if spec.namespace_flags() & libc::CLONE_NEWCGROUP != 0 {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWCGROUP).doing(|| "cgroup namespace")?;
            }
            let propagation = root_propagation(&spec.linux.rootfs_propagation);
            mount(None::<&str>, "/", None::<&str>, propagation, None::<&str>).doing(|| "mount propagation")?;
            if *bind_root {
                mount(Some(*root), *root, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
                    .doing(|| *root)?;
            }
            let directory: OwnedFd = std::fs::File::open(root).doing(|| *root)?.into();
            mounts::mount_all(directory.as_fd(), spec)?;
            mounts::make_devices(directory.as_fd(), &spec.linux.devices)?;
            moments.mark("guest-mounts");
            for (source, path) in *files {
                mounts::cover_file(directory.as_fd(), source, path)?;
            }
            if spec.process.terminal {
                let opened = open_terminal(directory.as_fd(), launch.terminal_size)?;
                mount_console(directory.as_fd(), &opened.slave)?;
                terminal = Some(opened);
            }
            if !spec.process.cwd.is_empty() {
                // Made where it is missing; whether it can be entered is seen below, with the user's eyes.
                let _ = ensure_directory(directory.as_fd(), Path::new(&spec.process.cwd));
            }
            enter_root(directory.as_fd())?;
            moments.mark("guest-pivoted");
            finish_root(spec, *read_only)?;
            moments.mark("guest-masked");
        }
        Target::Exec { .. } => {
            if launch.process.terminal {
                let root: OwnedFd = std::fs::File::open("/").doing(|| "/")?.into();
                terminal = Some(open_terminal(root.as_fd(), launch.terminal_size)?);
            }
        }
    }
    let (program, environment) = become_user(launch, terminal.as_ref())?;
    let arguments = c_strings(&launch.process.args)?;
    let environment = c_strings(&environment)?;
    moments.mark("guest-user");
    let master = terminal.as_ref().map(|terminal| terminal.master.as_raw_fd());
    report(reports, &Report::Ready { master, moments: moments.into_list() });
    wait_for_start(&start);
    drop(terminal);
    let path = CString::new(program.as_str()).map_err(|_| invalid("a NUL byte in the command"))?;
    let Err(errno) = nix::unistd::execve(&path, &arguments, &environment);
    Err(exec_failure(&program, errno))
}

/// Signals as a program expects them: nothing blocked, everything at its default.
fn restore_signals() {
    use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
    // Those that the agent handles or ignores; execve(2) keeps what is ignored.
    for changed in [Signal::SIGPIPE, Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT] {
        // SAFETY: the default action has no handler that could be wrong.
        let _ = unsafe { signal(changed, SigHandler::SigDfl) };
    }
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Puts the pipes on 0 to 2 and closes everything else but the two control pipes: a copy of another process's pipe or of
/// the console port would keep it open.
fn keep_only(ends: ChildEnds, reports: &OwnedFd) -> Result<OwnedFd> {
    let start = lift(&ends.start).doing(|| "dup")?;
    if let Some(stdio) = &ends.stdio {
        let lifted = [lift(&stdio[0]), lift(&stdio[1]), lift(&stdio[2])];
        for (target, fd) in lifted.into_iter().enumerate() {
            let fd = fd.doing(|| "dup")?;
            // SAFETY: both are open descriptors of this process, and nothing in it relies on 0 to 2.
            Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), target as i32) }).doing(|| "dup2")?;
        }
    }
    // These numbers are closed below, all at once.
    std::mem::forget(ends);
    let mut kept = [reports.as_raw_fd() as u32, start.as_raw_fd() as u32];
    kept.sort_unstable();
    for (first, last) in [(3, kept[0] - 1), (kept[0] + 1, kept[1].saturating_sub(1)), (kept[1] + 1, u32::MAX)] {
        if first <= last {
            // SAFETY: closes descriptors that nothing in this process uses from here on.
            Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).doing(|| "close_range")?;
        }
    }
    Ok(start)
}

/// Makes the directory the root and lets go of the old one.
fn enter_root(root: BorrowedFd<'_>) -> Result<()> {
    nix::unistd::fchdir(root).doing(|| "entering the root")?;
    nix::unistd::pivot_root(".", ".").doing(|| "pivot_root")?;
    umount2(".", MntFlags::MNT_DETACH).doing(|| "leaving the old root")?;
    nix::unistd::chdir("/").doing(|| "/")
}

/// What is done from inside the new root.
fn finish_root(spec: &Spec, read_only: bool) -> Result<()> {
    if !spec.hostname.is_empty() {
        nix::unistd::sethostname(&spec.hostname).doing(|| "host name")?;
    }
    if !spec.domainname.is_empty() {
        let name = &spec.domainname;
        // SAFETY: the pointer and length are those of one string.
        Errno::result(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }).doing(|| "domain name")?;
    }
    for (name, value) in &spec.linux.sysctl {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        if path.contains("/../") {
            return Err(invalid(format!("{name} is not a sysctl")));
        }
        std::fs::write(&path, value).doing(|| format!("sysctl {name} = {value}"))?;
    }
    mounts::protect_paths(&spec.linux.readonly_paths)?;
    mounts::mask_paths(&spec.linux.masked_paths)?;
    if read_only || spec.root.readonly {
        mounts::remount_read_only("/")?;
    }
    Ok(())
}

/// Everything between the root and the program: user, limits, terminal, directory. Returns the program's path and the
/// environment.
fn become_user(launch: &Launch<'_>, terminal: Option<&Terminal>) -> Result<(String, Vec<String>)> {
    let process = launch.process;
    let identity = identity_of(launch)?;
    if let Some(Terminal { slave, .. }) = terminal {
        for target in 0..3 {
            // SAFETY: an open descriptor and 0 to 2, on which nothing relies.
            Errno::result(unsafe { libc::dup2(slave.as_raw_fd(), target) }).doing(|| "dup2")?;
        }
        take_control()?;
        if let Some(size) = process.console_size.filter(|_| launch.terminal_size.is_none()) {
            let size = bulkhead_protocol::Resize { height: size.height, width: size.width };
            terminal::set_size(slave, size)?;
        }
    }
    give_stdio_to(identity.uid);
    if let Some(value) = process.oom_score_adj.filter(|&value| value != 0) {
        std::fs::write("/proc/self/oom_score_adj", value.to_string()).doing(|| format!("oom_score_adj {value}"))?;
    }
    set_rlimits(&process.rlimits)?;
    if process.no_new_privileges {
        set_no_new_privileges()?;
    }
    become_identity(&identity, process.capabilities.as_ref().map(CapabilitySets::parse))?;
    let umask = process.user.umask.unwrap_or(0o022);
    nix::sys::stat::umask(Mode::from_bits_truncate(umask));
    let cwd = if process.cwd.is_empty() { "/" } else { &process.cwd };
    nix::unistd::chdir(cwd).map_err(|errno| {
        Failure::new(
            FailureCode::BadWorkingDirectory,
            format!("chdir to cwd ({cwd:?}) set in config.json failed: {}", errno_text(errno)),
        )
    })?;
    let mut environment = process.env.clone();
    if !environment.iter().any(|entry| entry.starts_with("HOME=") && entry.len() > "HOME=".len()) {
        environment.retain(|entry| entry != "HOME=");
        environment.push(format!("HOME={}", identity.home));
    }
    Ok((find_command(&process.args[0], &environment)?, environment))
}

fn identity_of(launch: &Launch<'_>) -> Result<Identity> {
    let user = &launch.process.user;
    let passwd = read_database("/etc/passwd");
    let group = read_database("/etc/group");
    let mut identity = resolve_user(launch.user, (user.uid, user.gid), &passwd, &group)?;
    if launch.user.is_empty() && !user.additional_gids.is_empty() {
        identity.groups.clone_from(&user.additional_gids);
    } else {
        identity.groups.extend(&user.additional_gids);
    }
    for word in launch.additional_groups {
        identity.groups.push(resolve_group(word, &group)?);
    }
    Ok(identity)
}

/// A text file of the image; an image without it, or with something else in its place, has no entries.
fn read_database(path: &str) -> String {
    let flags = libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY;
    let Ok(file) = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path) else { return String::new() };
    let mut bytes = Vec::new();
    if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        let _ = file.take(MAX_DATABASE_BYTES).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Programs open /dev/stdout and the like again, so the user must own what is behind it.
fn give_stdio_to(uid: u32) {
    let null = nix::sys::stat::makedev(1, 3);
    for fd in 0..3 {
        // SAFETY: 0 to 2 are open and stay so.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let is_null = nix::sys::stat::fstat(fd).is_ok_and(|stat| stat.st_rdev == null || stat.st_uid == uid);
        if !is_null {
            let _ = nix::unistd::fchown(fd, Some(nix::unistd::Uid::from_raw(uid)), None);
        }
    }
}

fn wait_for_start(start: &OwnedFd) {
    let mut byte = [0];
    loop {
        match nix::unistd::read(start, &mut byte) {
            Ok(1) => return,
            Err(Errno::EINTR) => {}
            // The agent gave this container up.
            _ => end(),
        }
    }
}

fn c_strings(strings: &[String]) -> Result<Vec<CString>> {
    strings
        .iter()
        .map(|string| CString::new(string.as_str()).map_err(|_| internal("a NUL byte", Errno::EINVAL)))
        .collect()
}
