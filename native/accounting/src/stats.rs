//! What a container has used.

use crate::groups::{Groups, read_number, read_table, read_text};
use crate::interfaces::read_interfaces;
use crate::{now_ns, online_cpus, tick_ns, total_memory_bytes};
use bulkhead_protocol::{BlockIoUse, ContainerStats, CpuUse, Failure, FailureCode, MemoryUse, PidsUse};
use std::collections::BTreeMap;

/// What the cgroups of this process, and its network, have used.
///
/// # Errors
/// `WrongState` if the process is gone.
pub fn read_stats(pid: u32) -> Result<ContainerStats, Failure> {
    let gone = || Failure::new(FailureCode::WrongState, "the container is not running");
    let groups = Groups::of_process(pid).ok_or_else(gone)?;
    let (cpu, memory, pids, block_io) = match groups.unified() {
        Some(_) => version_2(&groups),
        None => version_1(&groups),
    };
    Ok(ContainerStats {
        read_at_ns: now_ns(),
        cpu: CpuUse { of_all_cpus_ns: of_all_cpus_ns(), online_cpus: online_cpus(), ..cpu },
        memory,
        pids,
        block_io,
        networks: read_interfaces(pid),
        machine: None,
    })
}

/// Memory of one process with what it shares counted by its share (PSS), bytes; 0 if it is gone.
#[must_use]
pub fn proportional_memory(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// CPU time of one process with all its threads, nanoseconds; 0 if it is gone.
#[must_use]
pub fn cpu_time_of(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name is in parentheses and may hold anything, parentheses too.
    let Some((_, rest)) = text.rsplit_once(')') else { return 0 };
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    (ticks(11) + ticks(12)) * tick_ns()
}

/// The columns user to softirq of /proc/stat's first line, as Docker sums them (moby daemon/stats_unix.go).
fn of_all_cpus_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().unwrap_or_default();
    let ticks: u64 = first.split_whitespace().skip(1).take(7).filter_map(|text| text.parse::<u64>().ok()).sum();
    ticks * tick_ns()
}

type Parts = (CpuUse, MemoryUse, PidsUse, Vec<BlockIoUse>);

fn version_2(groups: &Groups) -> Parts {
    let directory = groups.unified();
    let cpu = read_table(directory, "cpu.stat");
    let microseconds = |name: &str| cpu.get(name).copied().unwrap_or(0) * 1000;
    let count = |name: &str| cpu.get(name).copied().unwrap_or(0);
    let events = read_table(directory, "memory.events");
    let used = CpuUse {
        total_ns: microseconds("usage_usec"),
        user_ns: microseconds("user_usec"),
        system_ns: microseconds("system_usec"),
        periods: count("nr_periods"),
        throttled_periods: count("nr_throttled"),
        throttled_ns: microseconds("throttled_usec"),
        ..CpuUse::default()
    };
    let memory = MemoryUse {
        usage_bytes: read_number(directory, "memory.current").unwrap_or(0),
        max_usage_bytes: read_number(directory, "memory.peak").unwrap_or(0),
        limit_bytes: limit_or_all(read_number(directory, "memory.max")),
        failures: events.get("max").copied().unwrap_or(0),
        details: read_table(directory, "memory.stat"),
    };
    let pids = PidsUse {
        current: read_number(directory, "pids.current").unwrap_or(0),
        limit: read_number(directory, "pids.max").unwrap_or(0),
    };
    (used, memory, pids, parse_io_stat(&read_text(directory, "io.stat")))
}

fn version_1(groups: &Groups) -> Parts {
    let accounting = groups.of("cpuacct");
    let ticks = read_table(accounting, "cpuacct.stat");
    let of = |name: &str| ticks.get(name).copied().unwrap_or(0) * tick_ns();
    let throttling = read_table(groups.of("cpu"), "cpu.stat");
    let count = |name: &str| throttling.get(name).copied().unwrap_or(0);
    let used = CpuUse {
        total_ns: read_number(accounting, "cpuacct.usage").unwrap_or(0),
        user_ns: of("user"),
        system_ns: of("system"),
        periods: count("nr_periods"),
        throttled_periods: count("nr_throttled"),
        throttled_ns: count("throttled_time"),
        ..CpuUse::default()
    };
    let memory_group = groups.of("memory");
    let memory = MemoryUse {
        usage_bytes: read_number(memory_group, "memory.usage_in_bytes").unwrap_or(0),
        max_usage_bytes: read_number(memory_group, "memory.max_usage_in_bytes").unwrap_or(0),
        limit_bytes: limit_or_all(read_number(memory_group, "memory.limit_in_bytes")),
        failures: read_number(memory_group, "memory.failcnt").unwrap_or(0),
        details: read_table(memory_group, "memory.stat"),
    };
    let pids_group = groups.of("pids");
    let pids = PidsUse {
        current: read_number(pids_group, "pids.current").unwrap_or(0),
        limit: read_number(pids_group, "pids.max").unwrap_or(0),
    };
    let blkio = groups.of("blkio");
    let bytes = read_text(blkio, "blkio.throttle.io_service_bytes_recursive");
    let operations = read_text(blkio, "blkio.throttle.io_serviced_recursive");
    (used, memory, pids, parse_blkio(&bytes, &operations))
}

/// Version 1 writes a number that no memory has where there is no limit.
fn limit_or_all(limit: Option<u64>) -> u64 {
    let all = total_memory_bytes();
    limit.map_or(all, |limit| limit.min(all))
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …`, a device a line.
fn parse_io_stat(text: &str) -> Vec<BlockIoUse> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (major, minor) = parse_device(words.next()?)?;
            let mut device = BlockIoUse { major, minor, ..BlockIoUse::default() };
            for (name, value) in words.filter_map(|word| word.split_once('=')) {
                let value = value.parse().unwrap_or(0);
                match name {
                    "rbytes" => device.read_bytes = value,
                    "wbytes" => device.written_bytes = value,
                    "rios" => device.reads = value,
                    "wios" => device.writes = value,
                    _ => {}
                }
            }
            Some(device)
        })
        .collect()
}

/// `8:0 Read 4096`, several lines a device, in two files.
fn parse_blkio(bytes: &str, operations: &str) -> Vec<BlockIoUse> {
    let mut devices: BTreeMap<(u64, u64), BlockIoUse> = BTreeMap::new();
    for (text, is_bytes) in [(bytes, true), (operations, false)] {
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let &[device, kind, value] = words.as_slice() else { continue };
            let Some((major, minor)) = parse_device(device) else { continue };
            let value = value.parse().unwrap_or(0);
            let entry =
                devices.entry((major, minor)).or_insert_with(|| BlockIoUse { major, minor, ..BlockIoUse::default() });
            match (kind, is_bytes) {
                ("Read", true) => entry.read_bytes = value,
                ("Write", true) => entry.written_bytes = value,
                ("Read", false) => entry.reads = value,
                ("Write", false) => entry.writes = value,
                _ => {}
            }
        }
    }
    devices.into_values().collect()
}

fn parse_device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_devices_of_both_versions_say_the_same() {
        let expected = BlockIoUse { major: 254, minor: 0, read_bytes: 4096, written_bytes: 8192, reads: 1, writes: 2 };
        let version_2 = parse_io_stat("254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n");
        let version_1 = parse_blkio(
            "254:0 Read 4096\n254:0 Write 8192\n254:0 Sync 0\n254:0 Total 12288\nTotal 12288\n",
            "254:0 Read 1\n254:0 Write 2\n",
        );
        assert_eq!(version_2, std::slice::from_ref(&expected));
        assert_eq!(version_1, [expected]);
    }

    #[test]
    fn this_process_is_counted() {
        let pid = std::process::id();
        let stats = read_stats(pid).unwrap();
        assert!(stats.cpu.of_all_cpus_ns > 0 && stats.cpu.online_cpus > 0);
        assert!(stats.memory.limit_bytes > 0);
        assert!(proportional_memory(pid) > 100 * 1024);
        assert_eq!(read_stats(0x7fff_fff0).unwrap_err().code, FailureCode::WrongState);
    }
}
