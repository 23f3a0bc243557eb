//! The moments of a request, for the host's account of a start. The guest's clock is not the host's, so they are told as
//! time since the request was taken up.

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// A name, and CLOCK_MONOTONIC in nanoseconds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Moment(String, u64);

/// Moments in order.
pub(crate) struct Moments {
    begin_ns: u64,
    list: Vec<Moment>,
}

impl Moments {
    /// None yet; the request was taken up now.
    pub(crate) fn new() -> Self {
        Self { begin_ns: now_ns(), list: Vec::new() }
    }

    /// `name` is reached.
    pub(crate) fn mark(&mut self, name: &str) {
        self.list.push(Moment(name.to_owned(), now_ns()));
    }

    /// Adds what another process has noted.
    pub(crate) fn take(&mut self, moments: Vec<Moment>) {
        self.list.extend(moments);
    }

    /// The list, to be sent to another process.
    pub(crate) fn into_list(self) -> Vec<Moment> {
        self.list
    }

    /// `name=ns,name=ns`, as the answer's `x-moments` header has it.
    pub(crate) fn header(&self) -> String {
        self.list.iter().fold(String::new(), |mut text, Moment(name, ns)| {
            let comma = if text.is_empty() { "" } else { "," };
            let _ = write!(text, "{comma}{name}={}", ns.saturating_sub(self.begin_ns));
            text
        })
    }
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(|time| (time.tv_sec(), time.tv_nsec())).unwrap_or_default();
    now.0.unsigned_abs() * 1_000_000_000 + now.1.unsigned_abs()
}
