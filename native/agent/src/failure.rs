//! Failures made from errors of the kernel, in the wording that container users know.

use bulkhead_protocol::{Failure, FailureCode};
use nix::errno::Errno;

/// What everything here fails with.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// The kernel's words for an error, as Go programs print them (lower case).
pub(crate) fn errno_text(errno: Errno) -> String {
    let text = errno.desc();
    match (text.get(..1), text.get(1..2)) {
        (Some(first), Some(second)) if second.chars().all(|c| c.is_lowercase() || c == ' ') => {
            format!("{}{}", first.to_lowercase(), &text[1..])
        }
        _ => text.to_owned(),
    }
}

/// The error number in an I/O error.
pub(crate) fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// A failure of ours or of the guest's kernel; out of memory, space or processes is told apart.
pub(crate) fn internal(what: impl std::fmt::Display, errno: Errno) -> Failure {
    let code = match errno {
        Errno::ENOMEM | Errno::ENOSPC | Errno::EAGAIN | Errno::EDQUOT | Errno::EMFILE | Errno::ENFILE => {
            FailureCode::ResourceExhausted
        }
        _ => FailureCode::Internal,
    };
    Failure::new(code, format!("{what}: {}", errno_text(errno)))
}

/// A request that makes no sense.
pub(crate) fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(FailureCode::InvalidRequest, message)
}

/// Something that is not possible in this state.
pub(crate) fn wrong_state(message: impl Into<String>) -> Failure {
    Failure::new(FailureCode::WrongState, message)
}

/// Adds what was being done to an error of the kernel.
pub(crate) trait Doing<T> {
    /// `what` names the object and the action.
    fn doing<D: std::fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T>;
}

impl<T> Doing<T> for nix::Result<T> {
    fn doing<D: std::fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|errno| internal(what(), errno))
    }
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing<D: std::fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| internal(what(), errno_of(&error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_go_programs_print_them() {
        assert_eq!(errno_text(Errno::ENOENT), "no such file or directory");
        assert_eq!(errno_text(Errno::EACCES), "permission denied");
        assert_eq!(errno_text(Errno::ENOEXEC), "exec format error");
        assert_eq!(errno_text(Errno::EIO), "I/O error");
    }

    #[test]
    fn running_out_of_memory_is_its_own_kind() {
        assert_eq!(internal("x", Errno::ENOMEM).code, FailureCode::ResourceExhausted);
        assert_eq!(internal("x", Errno::EPERM).message, "x: operation not permitted");
    }
}
