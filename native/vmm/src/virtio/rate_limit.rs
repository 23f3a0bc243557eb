//! Limits of bytes and operations a second, as two token buckets of one second each.

use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};
use vmm_sys_util::timerfd::TimerFd;

/// How long a device waits before it looks again whether it may go on.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct Bucket {
    per_second: u64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn new(per_second: u64) -> Self {
        Self { per_second, tokens: per_second as f64, at: Instant::now() }
    }

    fn refill(&mut self, now: Instant) {
        let rate = self.per_second as f64;
        self.tokens = (self.tokens + now.duration_since(self.at).as_secs_f64() * rate).min(rate);
        self.at = now;
    }

    /// A request larger than the bucket passes when it is full, and is paid for afterwards.
    fn allows(&mut self, now: Instant) -> bool {
        if self.per_second == 0 {
            return true;
        }
        self.refill(now);
        self.tokens > 0.0
    }

    fn pay(&mut self, amount: u64) {
        if self.per_second != 0 {
            self.tokens -= amount as f64;
        }
    }
}

/// Both limits of a device, and the timer that wakes it.
#[derive(Debug)]
pub struct RateLimit {
    bytes: Bucket,
    operations: Bucket,
    timer: TimerFd,
}

impl RateLimit {
    /// Limits a second; 0 is none.
    pub fn new(bytes: u64, operations: u64) -> std::io::Result<Self> {
        Ok(Self { bytes: Bucket::new(bytes), operations: Bucket::new(operations), timer: TimerFd::new()? })
    }

    /// Changes the limits.
    pub fn set(&mut self, bytes: u64, operations: u64) {
        self.bytes = Bucket::new(bytes);
        self.operations = Bucket::new(operations);
    }

    /// Takes one operation of this size, or says no and sets the timer.
    pub fn take(&mut self, bytes: u64) -> bool {
        let now = Instant::now();
        if self.bytes.allows(now) && self.operations.allows(now) {
            self.bytes.pay(bytes);
            self.operations.pay(1);
            return true;
        }
        let _ = self.timer.reset(PAUSE, None);
        false
    }

    /// The timer's descriptor.
    pub fn source(&self) -> RawFd {
        self.timer.as_raw_fd()
    }

    /// Takes note that the timer went off.
    pub fn acknowledge(&mut self) {
        // Stopped anew: reading it would block where it did not go off.
        let _ = self.timer.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_beyond_a_second_s_worth_have_to_wait() {
        let mut limit = RateLimit::new(0, 10).unwrap();

        let passed = (0..100).filter(|_| limit.take(1 << 20)).count();

        assert!((10..=12).contains(&passed), "{passed}");
    }

    #[test]
    fn one_large_request_passes_and_is_paid_for() {
        let mut limit = RateLimit::new(1000, 0).unwrap();

        assert!(limit.take(5000));
        assert!(!limit.take(1));
    }

    #[test]
    fn without_limits_everything_passes() {
        let mut limit = RateLimit::new(0, 0).unwrap();

        assert!((0..1000).all(|_| limit.take(u64::MAX)));
    }
}
