//! Limits of a container, as files of a cgroup2 directory in the guest.

mod live;

use crate::failure::{Result, errno_of, internal, invalid};
use crate::spec::ResourceSpec;
use nix::errno::Errno;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Where the guest's cgroup2 is mounted.
pub(crate) const CGROUP_MOUNT: &str = "/sys/fs/cgroup";

/// One container's group; absent where the agent does not own the cgroup tree (on a developer's host).
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes the group with its limits.
    pub(crate) fn create(name: &str, resources: &ResourceSpec) -> Result<Self> {
        let Self { path } = Self::of_container(name);
        if let Err(error) = std::fs::create_dir(&path)
            && errno_of(&error) != Errno::EEXIST
        {
            return Err(internal(format!("cgroup {}", path.display()), errno_of(&error)));
        }
        let cgroup = Self { path };
        for (file, value) in plan_limits(resources)? {
            cgroup.write_limit(&file, &value)?;
        }
        Ok(cgroup)
    }

    /// The group that was made for a container.
    pub(crate) fn of_container(name: &str) -> Self {
        Self { path: Path::new(CGROUP_MOUNT).join(name) }
    }

    fn write_limit(&self, file: &str, value: &str) -> Result<()> {
        std::fs::write(self.path.join(file), value).map_err(|error| match errno_of(&error) {
            Errno::ENOENT => invalid(format!("{file}: the guest's kernel has no such limit")),
            Errno::EINVAL | Errno::ERANGE | Errno::ENODEV => invalid(format!("{file}: {value} is not possible here")),
            errno => internal(format!("{file} = {value}"), errno),
        })
    }

    /// The directory, for clone3(2).
    pub(crate) fn open(&self) -> Result<OwnedFd> {
        std::fs::File::open(&self.path)
            .map(OwnedFd::from)
            .map_err(|error| internal(format!("cgroup {}", self.path.display()), errno_of(&error)))
    }

    /// Whether the OOM killer struck in it.
    pub(crate) fn oom_killed(&self) -> bool {
        std::fs::read_to_string(self.path.join("memory.events")).is_ok_and(|events| has_oom_kill(&events))
    }

    /// Kills whatever is left in it.
    pub(crate) fn kill(&self) {
        // A kernel without cgroup.kill (before 5.14) has nothing that could be left: the pid namespace is gone.
        let _ = std::fs::write(self.path.join("cgroup.kill"), "1");
    }

    /// Removes it; a group that is still in use stays, and costs nothing.
    pub(crate) fn remove(&self) {
        let _ = std::fs::remove_dir(&self.path);
    }
}

/// The group of a running process, where a further process of its container belongs.
pub(crate) fn open_cgroup_of(pid: i32) -> Option<OwnedFd> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(std::fs::File::open(format!("{CGROUP_MOUNT}{path}")).ok()?.into())
}

/// Makes all controllers of the root group available to its children.
pub(crate) fn enable_controllers() {
    let Ok(names) = std::fs::read_to_string(format!("{CGROUP_MOUNT}/cgroup.controllers")) else { return };
    let enabled: Vec<String> = names.split_whitespace().map(|name| format!("+{name}")).collect();
    let control = format!("{CGROUP_MOUNT}/cgroup.subtree_control");
    if std::fs::write(&control, enabled.join(" ")).is_err() {
        // One that cannot be enabled must not take the others with it.
        for name in enabled {
            let _ = std::fs::write(&control, name);
        }
    }
}

fn has_oom_kill(events: &str) -> bool {
    events.lines().filter_map(|line| line.split_once(' ')).any(|(name, count)| {
        matches!(name, "oom_kill" | "oom_group_kill") && count.trim().parse::<u64>().is_ok_and(|count| count > 0)
    })
}

/// Runtime-spec resources → cgroup2 files. Conversions are those of
/// <https://github.com/opencontainers/cgroups/blob/main/utils.go>.
fn plan_limits(resources: &ResourceSpec) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    let mut add = |file: &str, value: String| files.push((file.to_owned(), value));
    let memory = &resources.memory;
    if let Some(limit) = memory.limit.filter(|&limit| limit != 0) {
        add("memory.max", bytes_or_max(limit));
    }
    if let Some(swap) = memory.swap.filter(|&swap| swap != 0) {
        // The spec's number is memory and swap together.
        let limit = memory.limit.unwrap_or(0);
        if swap > 0 && swap < limit {
            return Err(invalid(format!("memory and swap together ({swap}) are less than memory alone ({limit})")));
        }
        add("memory.swap.max", if swap < 0 { "max".into() } else { (swap - limit.max(0)).to_string() });
    }
    if let Some(reservation) = memory.reservation.filter(|&reservation| reservation != 0) {
        add("memory.low", bytes_or_max(reservation));
    }
    if let Some(shares) = resources.cpu.shares.filter(|&shares| shares != 0) {
        add("cpu.weight", weight_from_shares(shares).to_string());
    }
    if resources.cpu.quota.is_some() || resources.cpu.period.is_some() {
        let quota = resources.cpu.quota.filter(|&quota| quota > 0).map_or("max".into(), |quota| quota.to_string());
        let period = resources.cpu.period.filter(|&period| period != 0).unwrap_or(100_000);
        add("cpu.max", format!("{quota} {period}"));
    }
    if !resources.cpu.cpus.is_empty() {
        add("cpuset.cpus", resources.cpu.cpus.clone());
    }
    if !resources.cpu.mems.is_empty() {
        add("cpuset.mems", resources.cpu.mems.clone());
    }
    if let Some(limit) = resources.pids.limit.filter(|&limit| limit != 0) {
        add("pids.max", bytes_or_max(limit));
    }
    for (file, value) in &resources.unified {
        if file.contains('/') || file.starts_with("cgroup.") {
            return Err(invalid(format!("{file} is not a limit")));
        }
        add(file, value.clone());
    }
    Ok(files)
}

fn bytes_or_max(limit: i64) -> String {
    if limit < 0 { "max".into() } else { limit.to_string() }
}

/// 2 … 262144 → 1 … 10000.
fn weight_from_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plan(value: serde_json::Value) -> Vec<(String, String)> {
        plan_limits(&serde_json::from_value(value).unwrap()).unwrap()
    }

    fn pair(file: &str, value: &str) -> (String, String) {
        (file.to_owned(), value.to_owned())
    }

    #[test]
    fn swap_is_told_apart_from_memory() {
        let files = plan(json!({"memory": {"limit": 100, "swap": 300, "reservation": 50}}));
        assert_eq!(files, [pair("memory.max", "100"), pair("memory.swap.max", "200"), pair("memory.low", "50")]);
        assert_eq!(plan(json!({"memory": {"limit": 100, "swap": 100}}))[1], pair("memory.swap.max", "0"));
        assert_eq!(plan(json!({"memory": {"limit": -1, "swap": -1}}))[1], pair("memory.swap.max", "max"));
    }

    #[test]
    fn less_swap_than_memory_is_refused() {
        let resources = serde_json::from_value(json!({"memory": {"limit": 100, "swap": 50}})).unwrap();
        assert!(plan_limits(&resources).is_err());
    }

    #[test]
    fn cpu_numbers_follow_the_published_conversions() {
        let files = plan(json!({"cpu": {"shares": 1024, "quota": 50_000, "cpus": "0-1"}}));
        assert_eq!(files, [pair("cpu.weight", "39"), pair("cpu.max", "50000 100000"), pair("cpuset.cpus", "0-1")]);
        assert_eq!(weight_from_shares(2), 1);
        assert_eq!(weight_from_shares(262_144), 10_000);
        assert_eq!(plan(json!({"cpu": {"quota": -1, "period": 5000}})), [pair("cpu.max", "max 5000")]);
    }

    #[test]
    fn no_process_limit_is_max() {
        assert_eq!(plan(json!({"pids": {"limit": -1}})), [pair("pids.max", "max")]);
        assert_eq!(plan(json!({"pids": {"limit": 64}})), [pair("pids.max", "64")]);
    }

    #[test]
    fn the_oom_killer_leaves_a_count() {
        assert!(has_oom_kill("low 0\nmax 5\noom 1\noom_kill 1\noom_group_kill 0\n"));
        assert!(!has_oom_kill("low 0\nmax 5\noom 1\noom_kill 0\n"));
    }
}
