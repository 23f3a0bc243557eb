//! Errors: a negative code for the caller of an export, and the details as JSON.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use serde::Serialize;

/// An argument is malformed: a null pointer, bad JSON, an address that is not aligned.
pub const BH_ERROR_INVALID_ARGUMENT: i32 = -1;
/// The handle was never given out, is closed, or is of another kind.
pub const BH_ERROR_STALE_HANDLE: i32 = -2;
/// Another call uses the object now; a vCPU serves one call at a time.
pub const BH_ERROR_BUSY: i32 = -3;
/// The range lies outside of the guest's memory, or overlaps what is there.
pub const BH_ERROR_OUT_OF_RANGE: i32 = -4;
/// The kernel refused; the error's JSON has `errno`.
pub const BH_ERROR_SYSTEM: i32 = -5;
/// The caller's buffer is too small; the error's JSON has `needed_bytes`.
pub const BH_ERROR_BUFFER_TOO_SMALL: i32 = -6;
/// The object is not in a state that allows the call.
pub const BH_ERROR_WRONG_STATE: i32 = -7;
/// The library failed in itself. The object may be unusable; the process is not.
pub const BH_ERROR_PANIC: i32 = -8;

/// What went wrong, with the object it happened to.
#[derive(Debug, Clone, Serialize)]
pub struct Fault {
    /// One of the `BH_ERROR_*` codes.
    pub code: i32,
    /// Name of the system error, for example `ENOENT`, if the kernel refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno: Option<String>,
    /// What it happened to: a path, a device, `vcpu 0`.
    pub object: String,
    /// One sentence that names the object.
    pub message: String,
    /// Bytes the caller's buffer must have, if it was too small.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needed_bytes: Option<usize>,
}

/// Result of everything in this crate that can fail.
pub type Outcome<T> = Result<T, Fault>;

impl Fault {
    /// A fault without a system error behind it.
    pub fn new(code: i32, object: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, errno: None, object: object.into(), message: message.into(), needed_bytes: None }
    }

    /// The kernel's refusal of `action` on `object`.
    pub fn system(errno: Errno, object: impl Into<String>, action: &str) -> Self {
        let object = object.into();
        let message = format!("cannot {action} {object}: {} ({errno:?})", errno.desc());
        Self { errno: Some(format!("{errno:?}")), ..Self::new(BH_ERROR_SYSTEM, object, message) }
    }

    /// An argument that the library does not accept.
    pub fn invalid(object: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(BH_ERROR_INVALID_ARGUMENT, object, message)
    }

    /// The system error behind this fault.
    pub fn is_errno(&self, errno: Errno) -> bool {
        self.errno.as_deref() == Some(&format!("{errno:?}"))
    }

    /// The JSON that callers see.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| format!("{{\"code\":{}}}", self.code))
    }
}

/// Names what a plain I/O error happened to.
pub trait Context<T> {
    /// Turns the error into a fault of `action` on `object`.
    fn context(self, action: &str, object: impl Into<String>) -> Outcome<T>;
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, action: &str, object: impl Into<String>) -> Outcome<T> {
        self.map_err(|error| match error.raw_os_error() {
            Some(code) => Fault::system(Errno::from_raw(code), object, action),
            None => {
                let object = object.into();
                let message = format!("cannot {action} {object}: {error}");
                Fault::new(BH_ERROR_SYSTEM, object, message)
            }
        })
    }
}

impl<T> Context<T> for nix::Result<T> {
    fn context(self, action: &str, object: impl Into<String>) -> Outcome<T> {
        self.map_err(|errno| Fault::system(errno, object, action))
    }
}

impl<T> Context<T> for Result<T, kvm_ioctls::Error> {
    fn context(self, action: &str, object: impl Into<String>) -> Outcome<T> {
        self.map_err(|error| Fault::system(Errno::from_raw(error.errno()), object, action))
    }
}

thread_local! {
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The calling thread's last error as JSON; empty if there was none.
pub fn last_json() -> String {
    LAST.with_borrow(Clone::clone)
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Runs an export's body so that nothing unwinds into the caller, and keeps the error for `bh_last_error`.
pub fn guard<T>(body: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    // A lock poisoned by the panic answers later calls on the same object with an error, so broken state is not used.
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        let message = format!("the library failed in itself: {}", panic_text(payload.as_ref()));
        Err(Fault::new(BH_ERROR_PANIC, "libbulkhead", message))
    });
    if let Err(fault) = &outcome {
        LAST.with_borrow_mut(|last| *last = fault.to_json());
    }
    outcome
}

/// As `guard`, with the code as the result.
pub fn guard_code(body: impl FnOnce() -> Outcome<i32>) -> i32 {
    guard(body).unwrap_or_else(|fault| fault.code)
}
