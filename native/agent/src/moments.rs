//! The moments of a request, for the host's account of a start. The guest's clock is not the host's, so they are told as
//! time since the request was taken up.

use std::fmt::Write as _;
use std::time::Instant;

/// Moments in order.
pub(crate) struct Moments {
    begin: Instant,
    list: Vec<(&'static str, u128)>,
}

impl Moments {
    /// None yet; the request was taken up now.
    pub(crate) fn new() -> Self {
        Self { begin: Instant::now(), list: Vec::new() }
    }

    /// `name` is reached.
    pub(crate) fn mark(&mut self, name: &'static str) {
        self.list.push((name, self.begin.elapsed().as_nanos()));
    }

    /// `name=ns,name=ns`, as the answer's `x-moments` header has it.
    pub(crate) fn header(&self) -> String {
        self.list.iter().fold(String::new(), |mut text, (name, ns)| {
            let comma = if text.is_empty() { "" } else { "," };
            let _ = write!(text, "{comma}{name}={ns}");
            text
        })
    }
}
