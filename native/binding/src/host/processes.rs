//! Processes that are not our children: found again without mistaking another one with the same pid.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::fault::{BH_ERROR_SYSTEM, Context, Fault, Outcome};

/// Which process.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessRequest {
    pid: i32,
    /// Refuses (ESRCH) a process that started at another time: it has inherited the pid.
    #[serde(default)]
    start_time_ticks: Option<u64>,
}

/// A process as the kernel knows it.
#[derive(Serialize)]
pub struct ProcessFacts {
    pid: i32,
    parent_pid: i32,
    /// Since the host's boot, in units of 10 ms (USER_HZ).
    start_time_ticks: u64,
    /// R, S, D, T, Z …, see proc(5).
    state: String,
}

fn process_object(pid: i32) -> String {
    format!("process {pid}")
}

fn parse_stat(pid: i32, stat: &str) -> Option<ProcessFacts> {
    // The name may hold blanks and parentheses; the last ) ends it.
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
    Some(ProcessFacts {
        pid,
        state: (*fields.first()?).to_owned(),
        parent_pid: fields.get(1)?.parse().ok()?,
        // Field 22 of stat; the state is field 3.
        start_time_ticks: fields.get(19)?.parse().ok()?,
    })
}

/// What /proc says of a process.
pub fn read_process(request: ProcessRequest) -> Outcome<ProcessFacts> {
    let object = process_object(request.pid);
    let stat =
        std::fs::read_to_string(format!("/proc/{}/stat", request.pid)).map_err(|error| match error.raw_os_error() {
            // ENOENT: there is none; ESRCH: it ended between open and read.
            Some(libc::ENOENT) | None => Fault::system(Errno::ESRCH, object.clone(), "find"),
            Some(code) => Fault::system(Errno::from_raw(code), object.clone(), "find"),
        })?;
    let facts = parse_stat(request.pid, &stat)
        .ok_or_else(|| Fault::new(BH_ERROR_SYSTEM, object.clone(), format!("cannot read the state of {object}")))?;
    if request.start_time_ticks.is_some_and(|wanted| wanted != facts.start_time_ticks) {
        let message = format!("{object} is another process than the one meant: the pid was given out again");
        return Err(Fault { message, ..Fault::system(Errno::ESRCH, object, "find") });
    }
    Ok(facts)
}

/// A descriptor of a process: readable when the process ends, and never another process with the same pid.
pub fn open_process(request: ProcessRequest) -> Outcome<(OwnedFd, ProcessFacts)> {
    let object = process_object(request.pid);
    if request.pid <= 0 {
        return Err(Fault::invalid(object, format!("{} is not the pid of a process", request.pid)));
    }
    // SAFETY: the call takes two integers.
    let raw = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, request.pid, 0) }).context("open", object)?;
    // SAFETY: the kernel just gave this descriptor (close-on-exec by itself), and nobody else has it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(raw as i32) };
    // Read after the descriptor is held: if the start time is right now, the descriptor's process is the one meant.
    let facts = read_process(request)?;
    Ok((descriptor, facts))
}

/// Signals the process of a descriptor; false if it has ended. Signal 0 only asks.
pub fn signal_process(descriptor: &OwnedFd, signal: i32) -> Outcome<bool> {
    // SAFETY: the call takes integers and a null pointer, which the kernel allows.
    let sent = Errno::result(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            descriptor.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    });
    match sent {
        Ok(_) => Ok(true),
        Err(Errno::ESRCH) => Ok(false),
        Err(errno) => Err(Fault::system(errno, "the process", &format!("send signal {signal} to"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 1000 200";
        let facts = parse_stat(7, stat).expect("facts");
        assert_eq!((facts.state.as_str(), facts.parent_pid, facts.start_time_ticks), ("S", 1, 4711));
    }
}
