//! The host cgroup of a machine process, in cgroup v1, v2, and both beside each other.

use bulkhead_protocol::{Failure, FailureCode};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// A machine's cgroup: one directory in each hierarchy that limits it.
pub struct MachineCgroup {
    directories: Vec<PathBuf>,
    /// File with a line `oom_kill N`.
    oom_events: Option<PathBuf>,
}

/// What a machine process may use.
#[derive(Clone, Copy)]
pub struct CgroupLimits {
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Threads.
    pub threads: u32,
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::new(FailureCode::MachineFailed, format!("the machine's cgroup {}: {error}", path.display()))
}

impl MachineCgroup {
    /// Makes the directories (those above too) and sets the limits.
    pub fn create(path: &str, limits: CgroupLimits) -> Result<Self, Failure> {
        let relative = Path::new(path);
        if path.is_empty() || !relative.components().all(|part| matches!(part, Component::Normal(_))) {
            let message = format!("the cgroup path \"{path}\" must be relative and without dots");
            return Err(Failure::new(FailureCode::InvalidRequest, message));
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut group = Self { directories: Vec::new(), oom_events: None };
        if let Some(root) = unified_root(&mounts).filter(|root| has_memory_controller(root)) {
            group.create_unified(&root, relative, limits)?;
        } else {
            group.create_v1(&mounts, relative, limits)?;
        }
        Ok(group)
    }

    fn create_unified(&mut self, root: &Path, relative: &Path, limits: CgroupLimits) -> Result<(), Failure> {
        let mut above = root.to_owned();
        for part in relative.components() {
            // The controllers of a group are given by the one above it.
            let _ = fs::write(above.join("cgroup.subtree_control"), "+memory +pids");
            above.push(part);
            make(&above)?;
        }
        self.directories.push(above.clone());
        self.oom_events = Some(above.join("memory.events"));
        set(&above.join("memory.max"), limits.memory_bytes)?;
        // Absent without swap.
        let _ = fs::write(above.join("memory.swap.max"), "0");
        set(&above.join("pids.max"), u64::from(limits.threads))
    }

    fn create_v1(&mut self, mounts: &str, relative: &Path, limits: CgroupLimits) -> Result<(), Failure> {
        for (controller, file, value) in
            [("memory", "memory.limit_in_bytes", limits.memory_bytes), ("pids", "pids.max", u64::from(limits.threads))]
        {
            let Some(root) = v1_root(mounts, controller) else { continue };
            let mut above = root;
            for part in relative.components() {
                above.push(part);
                make(&above)?;
            }
            set(&above.join(file), value)?;
            if controller == "memory" {
                self.oom_events = Some(above.join("memory.oom_control"));
            }
            self.directories.push(above);
        }
        Ok(())
    }

    /// `cgroup.procs` of each hierarchy, open for writing: a process that writes `0` moves itself there.
    pub fn open_procs(&self) -> Result<Vec<OwnedFd>, Failure> {
        self.directories
            .iter()
            .map(|directory| {
                let path = directory.join("cgroup.procs");
                let file = OpenOptions::new().write(true).open(&path).map_err(|error| failed(&path, &error))?;
                Ok(file.into())
            })
            .collect()
    }

    /// How many processes of the group the host's OOM killer has taken.
    pub fn oom_kills(&self) -> u64 {
        let text = self.oom_events.as_ref().and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
    }

    /// Removes the directories of a group that never had a process.
    pub fn remove_empty(&self) {
        for directory in &self.directories {
            let _ = fs::remove_dir(directory);
        }
    }

    /// Removes the directories; the process must be gone. The ones above stay: others may use them.
    pub async fn remove(&self) {
        for directory in &self.directories {
            // A process that was just reaped can still be counted for a moment.
            for _ in 0..20 {
                match fs::remove_dir(directory) {
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                    _ => break,
                }
            }
        }
    }
}

fn make(directory: &Path) -> Result<(), Failure> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(directory, &error)),
        _ => Ok(()),
    }
}

fn set(path: &Path, value: u64) -> Result<(), Failure> {
    fs::write(path, value.to_string()).map_err(|error| failed(path, &error))
}

/// Mount point, file system type and super block options of each line of mountinfo (proc(5)).
fn mounts_of(text: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    text.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        Some((left.split(' ').nth(4)?, right.next()?, right.nth(1)?))
    })
}

fn unified_root(mounts: &str) -> Option<PathBuf> {
    mounts_of(mounts).find(|(_, kind, _)| *kind == "cgroup2").map(|(path, ..)| path.into())
}

fn v1_root(mounts: &str, controller: &str) -> Option<PathBuf> {
    mounts_of(mounts)
        .find(|(_, kind, options)| *kind == "cgroup" && options.split(',').any(|word| word == controller))
        .map(|(path, ..)| path.into())
}

fn has_memory_controller(root: &Path) -> bool {
    fs::read_to_string(root.join("cgroup.controllers"))
        .is_ok_and(|text| text.split_whitespace().any(|word| word == "memory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "30 25 0:26 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
        31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
        32 25 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn hierarchies_are_found_by_their_controllers() {
        assert_eq!(v1_root(HYBRID, "memory"), Some("/sys/fs/cgroup/memory".into()));
        assert_eq!(v1_root(HYBRID, "cpuacct"), Some("/sys/fs/cgroup/cpu,cpuacct".into()));
        assert_eq!(v1_root(HYBRID, "pids"), None);
        assert_eq!(unified_root(HYBRID), Some("/sys/fs/cgroup/unified".into()));
    }

    #[test]
    fn a_path_that_leaves_the_hierarchy_is_refused() {
        let limits = CgroupLimits { memory_bytes: 1 << 30, threads: 10 };

        for path in ["", "/x", "a/../../x", "./a"] {
            assert!(MachineCgroup::create(path, limits).is_err(), "{path}");
        }
    }
}
