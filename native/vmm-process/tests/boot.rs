//! Real kernels until the guest's agent answers. They want KVM that runs an unmodified kernel: `make lab`.

mod support;

use serde_json::json;
use std::time::{Duration, Instant};
use support::{Plan, Process, can_boot, kernels};

const BOOT_DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn every_kernel_boots_until_its_agent_answers() {
    if !can_boot() {
        return;
    }
    for (name, kernel, initramfs) in kernels() {
        let begin = Instant::now();
        let plan = Plan::new(2, 256 << 20).kernel(&kernel, &initramfs, "");
        let mut process = Process::start(plan);
        process.open_session(BOOT_DEADLINE);
        eprintln!("{name}: agent after {} ms", begin.elapsed().as_millis());
        let answer = process.ask(json!({ "do": "query" }));
        assert_eq!(answer["return"]["state"], "running", "{answer}");
        process.assert_no_device_broken();
        process.stop();
    }
}

/// Open descriptors and resident memory of this process: what a leak would show in.
fn own_footprint() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn machines_start_and_stop_time_after_time() {
    if !can_boot() {
        return;
    }
    let rounds: usize = std::env::var("BULKHEAD_LAB_ROUNDS").map_or(10, |text| text.parse().unwrap());
    let before = own_footprint();
    for round in 0..rounds {
        let kernels = kernels();
        let (name, kernel, initramfs) = &kernels[round % kernels.len()];
        let mut process = Process::start(Plan::new(1 + round as u32 % 2, 256 << 20).kernel(kernel, initramfs, ""));
        process.open_session(BOOT_DEADLINE);
        process.stop();
        eprintln!("round {round}: {name}");
    }
    assert_eq!(own_footprint(), before);
}
