//! What a container's processes are and what they have used. The same code reads the host's /proc and cgroup file systems in the shim
//! (os wall) and those of a guest in its agent (vm wall); cgroup versions 1 and 2.
//!
//! A container is named by its first process: every number is found from there, in the cgroups that it is in.

mod groups;
mod interfaces;
mod processes;
mod stats;

pub use processes::list_processes;
pub use stats::{cpu_time_of, proportional_memory, read_stats};

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970.
fn now_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
}

/// Nanoseconds of one of the ticks that /proc counts in.
fn tick_ns() -> u64 {
    // SAFETY: sysconf takes and returns numbers.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    1_000_000_000 / u64::try_from(per_second).unwrap_or(100).max(1)
}

/// All memory, bytes, from /proc/meminfo.
#[must_use]
pub fn total_memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// CPUs that are on.
#[must_use]
pub fn online_cpus() -> u32 {
    // SAFETY: sysconf takes and returns numbers.
    let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    u32::try_from(count).unwrap_or(1).max(1)
}
