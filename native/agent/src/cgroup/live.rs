//! The group of a running container: frozen, or given other limits.

use super::{Cgroup, plan_limits};
use crate::failure::{Result, errno_of, internal, invalid};
use crate::spec::ResourceSpec;
use bulkhead_protocol::{Failure, FailureCode};
use std::time::Duration;

/// What the guest's kernel and the agent need of the machine's memory beside the container.
const KEPT_BYTES: u64 = 16 << 20;
/// Freezing takes a signal to every thread; one that hangs in the kernel can take long.
const FREEZE_DEADLINE: Duration = Duration::from_secs(10);
const FREEZE_PAUSE: Duration = Duration::from_millis(5);
const MIB: u64 = 1 << 20;

impl Cgroup {
    /// Returns once everything in it stands still, or was told to go on.
    pub(crate) async fn freeze(&self, frozen: bool) -> Result<()> {
        self.set_frozen(frozen)?;
        if !frozen {
            return Ok(());
        }
        let waiting = async {
            while !self.is_frozen() {
                tokio::time::sleep(FREEZE_PAUSE).await;
            }
        };
        if tokio::time::timeout(FREEZE_DEADLINE, waiting).await.is_err() {
            self.set_frozen(false)?;
            let message = "a process of the container hangs in the kernel and cannot be paused";
            return Err(Failure::new(FailureCode::TimedOut, message));
        }
        Ok(())
    }

    fn set_frozen(&self, frozen: bool) -> Result<()> {
        let value = if frozen { "1" } else { "0" };
        std::fs::write(self.path.join("cgroup.freeze"), value)
            .map_err(|error| internal(format!("cgroup.freeze = {value}"), errno_of(&error)))
    }

    fn is_frozen(&self) -> bool {
        std::fs::read_to_string(self.path.join("cgroup.events"))
            .is_ok_and(|events| events.lines().any(|line| line == "frozen 1"))
    }

    /// Other limits. All are checked before the first is written.
    pub(crate) fn update(&self, resources: serde_json::Value) -> Result<()> {
        let resources: ResourceSpec = serde_json::from_value(resources)
            .map_err(|error| invalid(format!("the resources cannot be read: {error}")))?;
        check_machine(&resources, bulkhead_accounting::online_cpus(), bulkhead_accounting::total_memory_bytes())?;
        self.check_memory_use(&resources)?;
        let files = plan_limits(&resources)?;
        // A higher limit of memory comes before the one for memory and swap, a lower one after it; version 2 does not mind.
        files.iter().try_for_each(|(file, value)| self.write_limit(file, value))
    }

    /// The kernel would make room by killing.
    fn check_memory_use(&self, resources: &ResourceSpec) -> Result<()> {
        let Some(limit) = resources.memory.limit.and_then(|limit| u64::try_from(limit).ok()).filter(|&limit| limit > 0)
        else {
            return Ok(());
        };
        let number = |text: String| text.trim().parse::<u64>().unwrap_or(0);
        let used = std::fs::read_to_string(self.path.join("memory.current")).map_or(0, number);
        let stat = std::fs::read_to_string(self.path.join("memory.stat")).unwrap_or_default();
        let cached = stat.lines().find_map(|line| line.strip_prefix("file ")).map_or(0, |text| number(text.to_owned()));
        let needed = used.saturating_sub(cached);
        if needed > limit {
            return Err(too_much(format!(
                "the container uses {} MiB of memory: a limit of {} MiB would kill its processes",
                needed.div_ceil(MIB),
                limit / MIB
            )));
        }
        Ok(())
    }
}

/// What the machine has is what its container can be given without a restart.
fn check_machine(resources: &ResourceSpec, cpus: u32, memory_bytes: u64) -> Result<()> {
    let available = memory_bytes.saturating_sub(KEPT_BYTES);
    if let Some(limit) = resources.memory.limit.and_then(|limit| u64::try_from(limit).ok())
        && limit > available
    {
        return Err(too_much(format!(
            "its running machine has {} MiB of memory for it, {} MiB are asked for",
            available / MIB,
            limit.div_ceil(MIB)
        )));
    }
    let period = resources.cpu.period.filter(|&period| period > 0).unwrap_or(100_000);
    if let Some(quota) = resources.cpu.quota.and_then(|quota| u64::try_from(quota).ok())
        && quota > u64::from(cpus) * period
    {
        let asked = quota as f64 / period as f64;
        return Err(too_much(format!("its running machine has {cpus} virtual CPUs, {asked} are asked for")));
    }
    Ok(())
}

fn too_much(message: String) -> Failure {
    Failure::new(FailureCode::LimitExceeded, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(resources: serde_json::Value) -> Result<()> {
        check_machine(&serde_json::from_value(resources).unwrap(), 2, 256 << 20)
    }

    #[test]
    fn what_the_machine_has_can_be_given() {
        check(json!({"memory": {"limit": 200 << 20}, "cpu": {"quota": 200_000, "period": 100_000}})).unwrap();
        check(json!({"memory": {"limit": -1}, "cpu": {"quota": -1}, "pids": {"limit": 10_000}})).unwrap();
    }

    #[test]
    fn more_is_refused_with_the_numbers() {
        let memory = check(json!({"memory": {"limit": 512 << 20}})).unwrap_err();
        let cpus = check(json!({"cpu": {"quota": 250_000}})).unwrap_err();
        assert_eq!(memory.code, FailureCode::LimitExceeded);
        assert_eq!(memory.message, "its running machine has 240 MiB of memory for it, 512 MiB are asked for");
        assert_eq!(cpus.message, "its running machine has 2 virtual CPUs, 2.5 are asked for");
    }
}
