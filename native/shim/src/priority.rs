//! How much of the CPUs this sandbox gets beside the rest of the host.

use std::io::Write as _;

/// The least that there is (setpriority(2)).
const LOWEST: i32 = 19;
/// Of a session beside others: a tenth of a busy CPU. With the least there is (a seventieth) a machine on a busy host was not ready
/// after a minute.
const LOW: i32 = 10;
const NORMAL: i32 = 0;

/// What is made ready in advance must not slow down what somebody waits for. Children inherit it.
pub fn step_back() {
    set_session(LOW);
    // SAFETY: scalar arguments; 0 is this process.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, LOWEST) };
}

/// Somebody waits now: this process and all threads of the machine's user go at full speed.
pub fn step_forward(machine_uid: u32) {
    set_session(NORMAL);
    // SAFETY: scalar arguments.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NORMAL);
        libc::setpriority(libc::PRIO_USER, machine_uid, NORMAL);
    }
}

/// Where the scheduler groups tasks by session (sched(7), "The autogroup feature"), priorities count within a session only, and the
/// session's own counts beside others. The shim leads one, and its machine is in it.
fn set_session(nice: i32) {
    let opened = std::fs::OpenOptions::new().write(true).open("/proc/self/autogroup");
    if let Ok(mut file) = opened {
        let _ = file.write_all(nice.to_string().as_bytes());
    }
}
