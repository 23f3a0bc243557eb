//! Exit statuses, which say why the process ended. 159 (signal SIGSYS) is a system call that its thread may not use.

use bulkhead_vmm::{Ending, Error};

/// The guest switched the machine off, or it was stopped by its monitor.
pub const POWERED_OFF: i32 = 0;
/// The configuration is not understood, or asks for what is not possible.
pub const BAD_CONFIG: i32 = 2;
/// KVM is not there or refuses.
pub const NO_KVM: i32 = 3;
/// Kernel or initramfs cannot be booted.
pub const NO_BOOT: i32 = 4;
/// The saved state is damaged, or of another machine.
pub const BAD_STATE: i32 = 5;
/// The process could not be locked in.
pub const NO_JAIL: i32 = 6;
/// Anything else that the host refused.
pub const SYSTEM: i32 = 7;
/// The guest reset the machine, which is how it ends after a crash too.
pub const RESET: i32 = 10;
/// A vCPU could not go on.
pub const VCPU_FAILED: i32 = 11;
/// The monitor's peer went away.
pub const NO_MONITOR: i32 = 12;

/// Status of a machine that ended.
pub fn of_ending(ending: &Ending) -> i32 {
    match ending {
        Ending::PowerOff | Ending::Stopped => POWERED_OFF,
        Ending::Reset => RESET,
        Ending::VcpuFailed(_) => VCPU_FAILED,
    }
}

/// Status of a machine that could not be made.
pub fn of_error(error: &Error) -> i32 {
    match error {
        Error::Config(_) | Error::Device { .. } | Error::Memory(_) => BAD_CONFIG,
        Error::Kvm { .. } => NO_KVM,
        Error::Boot(_) => NO_BOOT,
        Error::State(_) => BAD_STATE,
        Error::System { .. } => SYSTEM,
    }
}

/// A machine's end in one word, for the monitor's event.
pub fn word(ending: &Ending) -> &'static str {
    match ending {
        Ending::PowerOff => "powerOff",
        Ending::Stopped => "stopped",
        Ending::Reset => "reset",
        Ending::VcpuFailed(_) => "vcpuFailed",
    }
}
