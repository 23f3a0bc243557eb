//! The frequency of the host's time-stamp counter. A guest that is told it (`tsc_early_khz=`) need not measure it.

use std::arch::x86_64::{__cpuid, _mm_lfence, _rdtsc};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::routes::Nothing;
use crate::fault::Outcome;

/// A frequency and who says so.
#[derive(Serialize)]
pub struct TscFrequency {
    khz: u64,
    /// `kvm`: the kernel's own number; `cpuid`: leaf 0x15; `hypervisor`: leaf 0x40000010; `measured`: against the raw monotonic clock.
    source: &'static str,
}

/// What the kernel found out and gives its guests.
fn from_kvm() -> Option<u64> {
    let kvm = kvm_ioctls::Kvm::new().ok()?;
    let vm = kvm.create_vm().ok()?;
    let khz = vm.create_vcpu(0).ok()?.get_tsc_khz().ok()?;
    Some(khz.into())
}

/// Leaf 0x15: crystal frequency times ratio. Intel SDM vol. 3, 20.7.3.
fn from_cpuid() -> Option<u64> {
    if __cpuid(0).eax < 0x15 {
        return None;
    }
    let leaf = __cpuid(0x15);
    let (denominator, numerator, crystal_hz) = (u64::from(leaf.eax), u64::from(leaf.ebx), u64::from(leaf.ecx));
    (denominator * numerator * crystal_hz > 0).then(|| crystal_hz * numerator / denominator / 1000)
}

/// The timing leaf that hypervisors give their guests: https://lwn.net/Articles/301888/.
fn from_hypervisor() -> Option<u64> {
    let under_hypervisor = __cpuid(1).ecx & (1 << 31) != 0;
    if !under_hypervisor || __cpuid(0x4000_0000).eax < 0x4000_0010 {
        return None;
    }
    Some(u64::from(__cpuid(0x4000_0010).eax)).filter(|khz| *khz > 0)
}

/// One moment on both clocks: the closest pair of some tries, so that an interruption in between does not count.
fn moment() -> Option<(u64, u64)> {
    let mut best = None;
    for _ in 0..16 {
        let before = read_counter();
        let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC_RAW).ok()?);
        let after = read_counter();
        let width = after.wrapping_sub(before);
        if best.is_none_or(|(narrowest, _, _)| width < narrowest) {
            best = Some((width, before.wrapping_add(width / 2), now.as_nanos() as u64));
        }
    }
    best.map(|(_, counter, nanoseconds)| (counter, nanoseconds))
}

fn read_counter() -> u64 {
    // SAFETY: both instructions exist on every x86-64 processor.
    unsafe {
        _mm_lfence();
        _rdtsc()
    }
}

fn measured() -> Option<u64> {
    let (first_counter, first) = moment()?;
    std::thread::sleep(Duration::from_millis(100));
    let (second_counter, second) = moment()?;
    let ticks = u128::from(second_counter.wrapping_sub(first_counter));
    let nanoseconds = u128::from(second.checked_sub(first)?).max(1);
    Some((ticks * 1_000_000 / nanoseconds) as u64)
}

/// The frequency, from the best source there is. /proc/cpuinfo is none: it shows the core's present frequency, not the counter's.
pub fn tsc_frequency(_request: Nothing) -> Outcome<TscFrequency> {
    type Source = (&'static str, fn() -> Option<u64>);
    let sources: [Source; 4] =
        [("kvm", from_kvm), ("cpuid", from_cpuid), ("hypervisor", from_hypervisor), ("measured", measured)];
    let found = sources.into_iter().find_map(|(source, read)| read().map(|khz| TscFrequency { khz, source }));
    found.ok_or_else(|| {
        crate::fault::Fault::new(
            crate::fault::BH_ERROR_SYSTEM,
            "TSC",
            "the frequency of the time-stamp counter cannot be found out",
        )
    })
}
