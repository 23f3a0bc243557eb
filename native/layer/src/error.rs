//! The one error of this program, as its caller reads it on standard error.

use serde::{Deserialize, Serialize};
use std::io;

/// Why a layer was refused. The names are part of the command's contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The blob's bytes do not have the expected digest.
    DigestMismatch,
    /// The uncompressed tar does not have the expected diffID.
    DiffIdMismatch,
    /// The blob or the tar in it ends too early.
    Truncated,
    /// The tar, or the compression around it, is malformed, or holds something no layer may hold.
    InvalidTar,
    /// A limit of [`crate::Limits`] was reached.
    LimitExceeded,
    /// The file system of the output is full, or its quota is.
    NoSpace,
    /// Reading the blob or writing the image failed.
    Io,
    /// The blob is compressed with something other than gzip or zstd.
    UnsupportedCompression,
}

/// A refusal: a code for programs, a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct LayerError {
    /// What kind of failure this is.
    pub code: Code,
    /// Names the entry or limit.
    pub message: String,
}

/// Result of everything here.
pub type Result<T> = std::result::Result<T, LayerError>;

impl LayerError {
    /// Any failure.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A malformed tar.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidTar, message)
    }

    /// A reached limit.
    pub fn limit(message: impl Into<String>) -> Self {
        Self::new(Code::LimitExceeded, message)
    }

    /// An I/O failure while doing `action`, such as "write the image". An error of ours that travelled through a
    /// foreign reader comes out unchanged.
    pub fn from_io(action: &str, error: io::Error) -> Self {
        if let Some(own) = error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()) {
            return own.clone();
        }
        let code = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Code::NoSpace,
            _ => Code::Io,
        };
        Self::new(code, format!("cannot {action}: {error}"))
    }
}

/// Bytes of a tar as a person can read them: quoted, escaped, at most about 200 characters.
pub fn shown(bytes: &[u8]) -> String {
    const MOST_BYTES: usize = 200;
    let cut = &bytes[..bytes.len().min(MOST_BYTES)];
    let dots = if bytes.len() > MOST_BYTES { "…" } else { "" };
    format!("\"{}{dots}\"", cut.escape_ascii())
}
