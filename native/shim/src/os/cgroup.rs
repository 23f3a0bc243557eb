//! Whether the kernel's OOM killer struck in a container's cgroup.

use std::fs;
use std::path::PathBuf;

/// The file that counts it, found while the container's init lives.
#[derive(Clone, Debug)]
pub struct OomCounter(PathBuf);

impl OomCounter {
    /// The counter of the cgroup that a process is in.
    pub fn of_process(pid: u32) -> Option<Self> {
        let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let path_of = |wanted: fn(&str) -> bool| {
            table.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                fields.next().filter(|controllers| wanted(controllers)).and_then(|_| fields.next())
            })
        };
        // Version 1 has a line for the controller, version 2 one without any name.
        if let Some(path) = path_of(|controllers| controllers.split(',').any(|name| name == "memory")) {
            return Some(Self(format!("/sys/fs/cgroup/memory{path}/memory.oom_control").into()));
        }
        path_of(str::is_empty).map(|path| Self(format!("/sys/fs/cgroup{path}/memory.events").into()))
    }

    /// Whether it has counted any; false once the cgroup is gone.
    pub fn struck(&self) -> bool {
        let content = fs::read_to_string(&self.0).unwrap_or_default();
        let count = content.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok());
        count.unwrap_or(0) > 0
    }
}
