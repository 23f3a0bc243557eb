//! The cgroups of a process: where each controller's files are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const MOUNT: &str = "/sys/fs/cgroup";

/// Directories of a process's cgroups.
#[derive(Debug)]
pub(crate) struct Groups {
    /// Version 1: controller → its directory.
    by_controller: BTreeMap<String, PathBuf>,
    /// Version 2, where it has controllers.
    unified: Option<PathBuf>,
}

impl Groups {
    /// From `/proc/PID/cgroup`; none for a process that is gone.
    pub(crate) fn of_process(pid: u32) -> Option<Self> {
        Some(Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?))
    }

    fn parse(table: &str) -> Self {
        let mut groups = Self { by_controller: BTreeMap::new(), unified: None };
        for line in table.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
            if controllers.is_empty() {
                groups.unified = Some(join(MOUNT, path));
            }
            for name in controllers.split(',').filter(|name| !name.is_empty() && !name.contains('=')) {
                groups.by_controller.insert(name.to_owned(), join(&format!("{MOUNT}/{name}"), path));
            }
        }
        if groups.by_controller.contains_key("memory") {
            // A hybrid set-up: the unified hierarchy is there, without controllers.
            groups.unified = None;
        }
        groups
    }

    /// Version 2's directory, with the files of every controller.
    pub(crate) fn unified(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    /// Version 1's directory of a controller.
    pub(crate) fn of(&self, controller: &str) -> Option<&Path> {
        self.by_controller.get(controller).map(PathBuf::as_path)
    }

    /// A directory whose `cgroup.procs`, with those below it, has all the processes.
    pub(crate) fn any(&self) -> Option<&Path> {
        self.unified().or_else(|| self.of("pids")).or_else(|| self.of("memory"))
    }
}

fn join(mount: &str, path: &str) -> PathBuf {
    Path::new(mount).join(path.trim_start_matches('/'))
}

/// A file's text; empty if it cannot be read.
pub(crate) fn read_text(directory: Option<&Path>, file: &str) -> String {
    directory.and_then(|directory| std::fs::read_to_string(directory.join(file)).ok()).unwrap_or_default()
}

/// A file with one number; none for `max` and for what is not there.
pub(crate) fn read_number(directory: Option<&Path>, file: &str) -> Option<u64> {
    read_text(directory, file).trim().parse().ok()
}

/// A file with a name and a number a line.
pub(crate) fn read_table(directory: Option<&Path>, file: &str) -> BTreeMap<String, u64> {
    let text = read_text(directory, file);
    text.lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_set_up_has_its_controllers_in_version_1() {
        let groups = Groups::parse("4:memory:/bulkhead/a\n2:cpu,cpuacct:/bulkhead/a\n9:name=systemd:/x\n0::/y\n");
        assert_eq!(groups.of("memory"), Some(Path::new("/sys/fs/cgroup/memory/bulkhead/a")));
        assert_eq!(groups.of("cpuacct"), Some(Path::new("/sys/fs/cgroup/cpuacct/bulkhead/a")));
        assert_eq!(groups.unified(), None);
        assert_eq!(groups.of("name=systemd"), None);
    }

    #[test]
    fn version_2_has_one_directory() {
        let groups = Groups::parse("0::/bulkhead/a\n");
        assert_eq!(groups.unified(), Some(Path::new("/sys/fs/cgroup/bulkhead/a")));
        assert_eq!(groups.any(), groups.unified());
    }
}
