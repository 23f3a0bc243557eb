//! What the process says to a configuration that cannot be, and that each kind of thread is confined.

mod support;

use bulkhead_vmm::ThreadKind;
use bulkhead_vmm_process::seccomp;
use serde_json::{Value, json};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;
use support::{Plan, Process, memory_file};

/// Starts a plan that cannot be; exit status and message.
fn refusal(plan: Plan) -> (Option<i32>, String) {
    let mut process = Process::start(plan);
    let status = process.wait(Duration::from_secs(20));
    (status.code(), process.stderr())
}

fn with(change: impl FnOnce(&mut Plan)) -> (Option<i32>, String) {
    let mut plan = Plan::new(1, 64 << 20);
    change(&mut plan);
    refusal(plan)
}

#[test]
fn impossible_machines_are_refused_with_a_status_and_a_name() {
    let cases: [(&str, Value, &str); 4] = [
        ("vcpus", json!(65), "65 vCPUs; 1 to 64 are possible"),
        ("memoryBytes", json!(1 << 20), "1048576 bytes of memory; 33554432 to"),
        ("memoryBytes", json!(1_u64 << 39), "the memory file has 67108864 bytes, the machine 549755813888"),
        ("network", json!({ "fd": 0, "mac": "x" }), "\"x\" is not the address of a network card"),
    ];
    for (field, value, words) in cases {
        let (code, said) = with(|plan| {
            let kernel = plan.keep(memory_file(4096));
            plan.machine["kernel"] = json!({ "fd": kernel });
            let memory = plan.keep(memory_file(64 << 20));
            plan.machine["memory"] = json!({ "fd": memory, "mapping": "shared" });
            plan.machine[field] = value;
        });
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn what_is_no_kernel_is_refused_as_such() {
    let (code, said) = with(|plan| {
        let kernel = plan.open(Path::new("/bin/true"), false);
        plan.machine["kernel"] = json!({ "fd": kernel });
    });
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("kernel"), "{said}");
}

#[test]
fn a_disk_that_is_no_disk_and_a_tap_that_is_none_are_named() {
    let (code, said) = with(|plan| {
        let kernel = plan.keep(memory_file(4096));
        plan.machine["kernel"] = json!({ "fd": kernel });
        let file = plan.keep(memory_file(512));
        plan.machine["disks"] = json!([{ "serial": "layers", "backend": { "kind": "extents", "extents": [{ "fd": file, "bytes": 4096 }] } }]);
    });
    assert_eq!((code, said.contains("disk layers: extent 0: 4096 bytes")), (Some(2), true), "{said}");
    let (code, said) = with(|plan| {
        let kernel = plan.keep(memory_file(4096));
        plan.machine["kernel"] = json!({ "fd": kernel });
        let file = plan.keep(memory_file(512));
        plan.machine["network"] = json!({ "fd": file, "mac": "02:00:00:00:00:01" });
    });
    assert_eq!((code, said.contains("network: the descriptor is not a tap")), (Some(2), true), "{said}");
}

/// Runs `body` in a child process whose only thread is confined; the signal that ended it.
fn signal_of_child(kind: ThreadKind, body: impl FnOnce()) -> Option<i32> {
    // SAFETY: the child makes plain system calls only, and ends.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: plain numbers.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        let confined = seccomp::confine(kind).is_ok();
        if confined {
            body();
        }
        // SAFETY: ends this child only.
        unsafe { libc::_exit(if confined { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: waits for the child just made.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    let status = std::process::ExitStatus::from_raw(status);
    assert!(status.code().is_none_or(|code| code == 0), "{status}");
    status.signal()
}

#[test]
fn each_kind_of_thread_dies_of_a_call_that_is_not_its_own() {
    for kind in [ThreadKind::Monitor, ThreadKind::Vcpu, ThreadKind::Disk, ThreadKind::Stream] {
        let harmless = signal_of_child(kind, || {
            // SAFETY: no memory is written.
            unsafe { libc::syscall(libc::SYS_sched_yield) };
        });
        let open = signal_of_child(kind, || {
            // SAFETY: a zero-terminated path.
            unsafe { libc::open(c"/".as_ptr(), libc::O_RDONLY) };
        });
        let clone = signal_of_child(kind, || {
            // SAFETY: never gets as far as a second process.
            unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) };
        });
        let ioctl = signal_of_child(kind, || {
            // SAFETY: KVM_CREATE_VM on a descriptor that is none.
            unsafe { libc::ioctl(-1, 0xae01, 0) };
        });
        assert_eq!(harmless, None, "{kind:?}");
        assert_eq!([open, clone, ioctl], [Some(libc::SIGSYS); 3], "{kind:?}");
    }
}
