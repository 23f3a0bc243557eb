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
