//! `--init`: a small PID 1 for a container whose program is not made to be one. It starts the program, hands every signal on to it,
//! collects what ends, and ends as the program did.
//!
//! It is this same binary under another name, so that a guest's memory holds it once; on the host's kernel it is mounted from the host.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Where a container finds it, under the name that Docker's has there.
pub(crate) const NAME: &str = "docker-init";

const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;
const FAILED: i32 = 125;

/// Whether the binary was called by that name.
pub(crate) fn is_called() -> bool {
    std::env::args_os().next().is_some_and(|name| Path::new(&name).file_name().is_some_and(|name| name == NAME))
}

/// `docker-init [--] PROGRAM [ARGUMENT...]`; returns the status to exit with.
pub(crate) fn run() -> i32 {
    let mut words = std::env::args_os().skip(1).peekable();
    if words.peek().is_some_and(|word| word == "--") {
        words.next();
    }
    let program: Result<Vec<CString>, _> = words.map(|word| CString::new(word.as_bytes())).collect();
    let Some(program) = program.ok().filter(|program| !program.is_empty()) else {
        complain("usage: docker-init [--] PROGRAM [ARGUMENT...]");
        return FAILED;
    };
    let mut before = SigSet::empty();
    // From here on signals wait until they are taken below.
    if sigprocmask(SigmaskHow::SIG_SETMASK, Some(&waited_for()), Some(&mut before)).is_err() {
        return FAILED;
    }
    // SAFETY: this process has one thread, so the child is a whole copy of it.
    match unsafe { libc::fork() } {
        0 => become_program(&program, &before),
        -1 => {
            complain(&format!("cannot make a process: {}", Errno::last().desc()));
            FAILED
        }
        child => attend(child),
    }
}

/// All but those by which the kernel tells a program of its own fault.
fn waited_for() -> SigSet {
    let mut set = SigSet::all();
    for fault in [Signal::SIGFPE, Signal::SIGILL, Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGABRT, Signal::SIGTRAP] {
        set.remove(fault);
    }
    // Its own reading of the terminal never stops it: it does not read.
    set
}

fn become_program(program: &[CString], mask: &SigSet) -> i32 {
    // A group of its own, in the foreground of the terminal if there is one: keys are for the program, not for its init.
    // SAFETY: plain numbers; each may fail without harm.
    unsafe {
        libc::setpgid(0, 0);
        if libc::isatty(0) == 1 {
            libc::tcsetpgrp(0, libc::getpgrp());
        }
    }
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(mask), None);
    let Err(errno) = nix::unistd::execvp(&program[0], program);
    complain(&format!("exec {} failed: {}", program[0].to_string_lossy(), errno.desc()));
    // The status of the child is that of the container.
    std::process::exit(if errno == Errno::ENOENT { NOT_FOUND } else { NOT_EXECUTABLE })
}

/// Until the program ends.
fn attend(child: libc::pid_t) -> i32 {
    let signals = waited_for();
    loop {
        let Ok(signal) = signals.wait() else { continue };
        if signal == Signal::SIGCHLD {
            if let Some(status) = collect(child) {
                return status;
            }
        } else {
            // SAFETY: plain numbers. A program that has just ended is collected next.
            unsafe { libc::kill(child, signal as libc::c_int) };
        }
    }
}

/// Collects everything that has ended; the program's status if it is among that.
fn collect(child: libc::pid_t) -> Option<i32> {
    let mut ended = None;
    loop {
        let mut status = 0;
        // SAFETY: waitpid writes one int.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid <= 0 {
            return ended;
        }
        if pid == child {
            ended =
                Some(if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) });
        }
    }
}

fn complain(text: &str) {
    eprintln!("[FATAL {NAME}] {text}");
}
