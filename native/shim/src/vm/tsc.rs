//! The frequency of the host's time stamp counter.

use crate::phases::monotonic_ns;
use std::time::Duration;

const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
/// Long enough to tell a frequency from another to a thousandth.
const SHORT: Duration = Duration::from_millis(1);
/// Long enough for some ten millionths, a quartz's own error.
const LONG: Duration = Duration::from_millis(10);
/// How far two frequencies may be apart to be the same one, as a fraction of it.
const SAME: u64 = 500;

/// kHz, or none when the host's kernel does not trust the counter.
///
/// No file tells it. /proc/cpuinfo has the kernel's exact value where the CPU's clock does not scale, and the present clock where it
/// does: a short measurement tells which of the two.
pub fn host_tsc_khz() -> Option<u64> {
    let source = std::fs::read_to_string(CLOCK_SOURCE).ok()?;
    // kvm-clock is computed from a counter that is as stable.
    if !matches!(source.trim(), "tsc" | "kvm-clock") {
        return None;
    }
    let said = cpuinfo_khz(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default());
    let measured = measure(SHORT)?;
    match said.filter(|said| said.abs_diff(measured) < measured / SAME) {
        Some(said) => Some(said),
        None => measure(LONG),
    }
}

fn cpuinfo_khz(text: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix("cpu MHz"))?.split(':').nth(1)?.trim();
    let (mhz, khz) = value.split_once('.')?;
    (khz.len() == 3).then(|| Some(mhz.parse::<u64>().ok()? * 1000 + khz.parse::<u64>().ok()?))?
}

fn measure(window: Duration) -> Option<u64> {
    let first = sample();
    std::thread::sleep(window);
    let second = sample();
    let (cycles, ns) = (second.0.checked_sub(first.0)?, second.1.checked_sub(first.1)?);
    u64::try_from(u128::from(cycles) * 1_000_000 / u128::from(ns.max(1))).ok().filter(|khz| *khz > 100_000)
}

/// Counter and clock at the same moment: of several tries the one that took the fewest cycles.
fn sample() -> (u64, u64) {
    let one = || {
        let (before, ns, after) = (counter(), monotonic_ns(), counter());
        (after.wrapping_sub(before), before.wrapping_add(after.wrapping_sub(before) / 2), ns)
    };
    let (_, cycles, ns) = (0..8).map(|_| one()).min().unwrap_or_else(one);
    (cycles, ns)
}

fn counter() -> u64 {
    // SAFETY: every x86-64 CPU has it, and Linux does not forbid it to user space.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpuinfo_gives_its_first_frequency_exactly() {
        let text = "processor\t: 0\ncpu MHz\t\t: 2596.138\nprocessor\t: 1\ncpu MHz\t\t: 800.000\n";

        assert_eq!(cpuinfo_khz(text), Some(2_596_138));
        assert_eq!(cpuinfo_khz("cpu MHz\t\t: nonsense\n"), None);
    }

    #[test]
    fn two_measurements_agree_to_a_thousandth() {
        let (one, other) = (measure(LONG).unwrap(), measure(LONG).unwrap());

        assert!(one.abs_diff(other) < one / 1000, "{one} {other}");
    }
}
