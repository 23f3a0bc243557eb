//! The processes of a container, as `ps` would tell of them.

use crate::groups::Groups;
use crate::{now_ns, tick_ns, total_memory_bytes};
use bulkhead_protocol::{Failure, FailureCode, ProcessFacts, ProcessList};
use std::io::Read;
use std::path::Path;

/// Bounds of one answer: a guest's processes are a guest's choice.
const PROCESSES_MAX: usize = 4096;
const ARGUMENT_BYTES_MAX: u64 = 512;
/// A container may nest cgroups of its own.
const DEPTH_MAX: usize = 16;

/// The processes in the cgroup of this one, and below it.
///
/// # Errors
/// `WrongState` if the process is gone.
pub fn list_processes(pid: u32) -> Result<ProcessList, Failure> {
    let gone = || Failure::new(FailureCode::WrongState, "the container is not running");
    let groups = Groups::of_process(pid).ok_or_else(gone)?;
    let mut pids = Vec::new();
    collect_pids(groups.any().ok_or_else(gone)?, 0, &mut pids);
    pids.sort_unstable();
    pids.dedup();
    let boot_ns = boot_time_ns();
    let truncated = pids.len() > PROCESSES_MAX;
    Ok(ProcessList {
        read_at_ns: now_ns(),
        memory_bytes: total_memory_bytes(),
        truncated,
        processes: pids.into_iter().take(PROCESSES_MAX).filter_map(|pid| read_process(pid, boot_ns)).collect(),
    })
}

fn collect_pids(directory: &Path, depth: usize, pids: &mut Vec<u32>) {
    let text = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|line| line.trim().parse::<u32>().ok()));
    if depth >= DEPTH_MAX || pids.len() > PROCESSES_MAX {
        return;
    }
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_pids(&entry.path(), depth + 1, pids);
        }
    }
}

/// Seconds since 1970 at boot are whole in /proc/stat, as `ps` uses them.
fn boot_time_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("btime "));
    line.and_then(|line| line.trim().parse::<u64>().ok()).unwrap_or(0) * 1_000_000_000
}

/// None for a process that has gone meanwhile.
fn read_process(pid: u32, boot_ns: u64) -> Option<ProcessFacts> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let facts = parse_stat(pid, &stat, boot_ns)?;
    Some(ProcessFacts { uid: effective_uid(&status), arguments: read_arguments(pid), ..facts })
}

/// Field numbers minus three of proc_pid_stat(5): those after the name.
fn parse_stat(pid: u32, text: &str, boot_ns: u64) -> Option<ProcessFacts> {
    // The name is in parentheses and may hold anything, parentheses too.
    let (head, rest) = text.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let signed = |index: usize| fields.get(index).and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
    let unsigned = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    // SAFETY: sysconf takes and returns numbers.
    let page_bytes = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    Some(ProcessFacts {
        pid,
        parent_pid: u32::try_from(unsigned(1)).unwrap_or(0),
        group: i32::try_from(signed(2)).unwrap_or(0),
        session: i32::try_from(signed(3)).unwrap_or(0),
        uid: 0,
        terminal: terminal_name(unsigned(4)),
        state: (*fields.first()?).to_owned(),
        threads: u32::try_from(unsigned(17)).unwrap_or(0),
        nice: i32::try_from(signed(16)).unwrap_or(0),
        started_at_ns: boot_ns + unsigned(19) * tick_ns(),
        cpu_ns: (unsigned(11) + unsigned(12)) * tick_ns(),
        virtual_bytes: unsigned(20),
        resident_bytes: unsigned(21) * page_bytes,
        name: printable(name.as_bytes()),
        arguments: Vec::new(),
    })
}

/// Device numbers of terminals: Linux, Documentation/admin-guide/devices.txt.
fn terminal_name(device: u64) -> String {
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00));
    match major {
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 if minor < 64 => format!("tty{minor}"),
        4 => format!("ttyS{}", minor - 64),
        5 if minor == 1 => "console".to_owned(),
        _ => String::new(),
    }
}

fn effective_uid(status: &str) -> u32 {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

fn read_arguments(pid: u32) -> Vec<String> {
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(format!("/proc/{pid}/cmdline")) {
        let _ = file.take(ARGUMENT_BYTES_MAX).read_to_end(&mut bytes);
    }
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    if bytes.is_empty() { Vec::new() } else { bytes.split(|byte| *byte == 0).map(printable).collect() }
}

/// A table is of lines: what would break them, or the terminal, is shown as `?`.
fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_move_the_fields() {
        let text = "7 (a) (b c) S 1 7 7 34816 7 4194560 100 0 0 0 250 50 0 0 20 5 3 0 1000 8192000 200 0";
        let facts = parse_stat(7, text, 1_000_000_000).unwrap();
        assert_eq!((facts.name.as_str(), facts.state.as_str(), facts.parent_pid), ("a) (b c", "S", 1));
        assert_eq!((facts.terminal.as_str(), facts.nice, facts.threads), ("pts/0", 5, 3));
        assert_eq!((facts.cpu_ns, facts.started_at_ns), (300 * tick_ns(), 1_000_000_000 + 1000 * tick_ns()));
        assert_eq!(facts.virtual_bytes, 8_192_000);
    }

    #[test]
    fn what_would_break_a_line_is_shown_as_a_question_mark() {
        assert_eq!(printable(b"a\nb\x1b[1m\xff"), "a?b?[1m\u{fffd}");
    }

    #[test]
    fn this_process_is_in_its_own_list() {
        let pid = std::process::id();
        let list = list_processes(pid).unwrap();
        let own = list.processes.iter().find(|process| process.pid == pid);
        assert!(own.is_some_and(|own| !own.arguments.is_empty() && own.started_at_ns > 0) || list.truncated);
    }
}
