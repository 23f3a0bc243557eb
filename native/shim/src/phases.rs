//! The moments of a start, on the host's monotonic clock.

use bulkhead_protocol::Phase;
use nix::time::{ClockId, clock_gettime};
use std::sync::{Arc, Mutex, PoisonError};

/// At most this many moments are kept: a sandbox lives long, its start does not.
const PHASES_MAX: usize = 64;
/// A guest's names are not trusted.
const PHASE_NAME_BYTES_MAX: usize = 32;

/// A list of moments, shared by all parts of the shim; a clone is another handle of the same list.
#[derive(Clone, Debug, Default)]
pub struct Phases(Arc<Mutex<Vec<Phase>>>);

impl Phases {
    /// Records that `name` happened now. The first time counts; a repeated name is ignored.
    pub fn mark(&self, name: &str) {
        let monotonic_ns = monotonic_ns();
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() < PHASES_MAX && list.iter().all(|phase| phase.name != name) {
            list.push(Phase { name: name.to_owned(), monotonic_ns });
        }
    }

    /// Forgets what was, and begins with `name` now: a machine that waited is taken into use.
    pub fn begin(&self, name: &str) {
        let first = Phase { name: name.to_owned(), monotonic_ns: monotonic_ns() };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = vec![first];
    }

    /// Records moments that another clock took, as nanoseconds after `begin_ns` of this one: `name=ns,name=ns`.
    pub fn take_moments(&self, begin_ns: u64, moments: &str) {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, after) in moments.split(',').filter_map(|part| part.split_once('=')) {
            let known = list.iter().any(|phase| phase.name == name);
            let (Ok(after), false, true, true) =
                (after.parse::<u64>(), known, list.len() < PHASES_MAX, name.len() <= PHASE_NAME_BYTES_MAX)
            else {
                continue;
            };
            list.push(Phase { name: name.to_owned(), monotonic_ns: begin_ns.saturating_add(after) });
        }
    }

    /// All moments so far, in order.
    pub fn list(&self) -> Vec<Phase> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// CLOCK_MONOTONIC in nanoseconds.
pub fn monotonic_ns() -> u64 {
    clock_ns(ClockId::CLOCK_MONOTONIC)
}

/// CLOCK_REALTIME in nanoseconds since 1970.
pub fn realtime_ns() -> u64 {
    clock_ns(ClockId::CLOCK_REALTIME)
}

fn clock_ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock).map(|time| (time.tv_sec(), time.tv_nsec())).unwrap_or_default();
    u64::try_from(now.0).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.1).unwrap_or(0)
}
