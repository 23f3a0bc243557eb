//! What can go wrong with a machine, in words that name the object.

use std::io;

/// A failure of the machine or of what it was given.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration asks for what is not possible.
    #[error("configuration: {0}")]
    Config(String),
    /// KVM is not there, or refused a call.
    #[error("KVM: {what}: {cause}")]
    Kvm {
        /// What was asked of it.
        what: String,
        /// Its answer.
        cause: io::Error,
    },
    /// The kernel or initramfs cannot be booted.
    #[error("boot: {0}")]
    Boot(String),
    /// Guest memory cannot be had.
    #[error("guest memory: {0}")]
    Memory(String),
    /// A device cannot be made.
    #[error("device {device}: {reason}")]
    Device {
        /// Its name.
        device: String,
        /// Why.
        reason: String,
    },
    /// A saved state is not one, or not for this machine.
    #[error("saved state: {0}")]
    State(String),
    /// A system call failed.
    #[error("{what}: {cause}")]
    System {
        /// What was tried.
        what: String,
        /// The answer.
        cause: io::Error,
    },
}

/// Result with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failed KVM call.
    pub fn kvm(what: impl Into<String>, cause: kvm_ioctls::Error) -> Self {
        Self::Kvm { what: what.into(), cause: cause.into() }
    }

    /// A failed system call.
    pub fn system(what: impl Into<String>, cause: io::Error) -> Self {
        Self::System { what: what.into(), cause }
    }

    /// A device that cannot be made.
    pub fn device(device: impl Into<String>, reason: impl ToString) -> Self {
        Self::Device { device: device.into(), reason: reason.to_string() }
    }
}
