//! What goes wrong, in words that both ends know.

use serde::{Deserialize, Serialize};

/// Body of every answer with a status ≥ 400.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// One of the codes below.
    pub code: FailureCode,
    /// Names the object and the cause.
    pub message: String,
}

/// Kinds of failure. An unknown one is read as `Internal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureCode {
    /// The request makes no sense.
    InvalidRequest,
    /// No such container or process.
    NotFound,
    /// Not possible in this state.
    WrongState,
    /// The command was not found in the root (exit code 127).
    CommandNotFound,
    /// The command cannot be executed (exit code 126).
    CommandNotExecutable,
    /// The user or group is not in the root's passwd or group file.
    NoSuchUser,
    /// The working directory cannot be made or entered.
    BadWorkingDirectory,
    /// A host port is in use.
    PortInUse,
    /// Memory, disk or processes have run out.
    ResourceExhausted,
    /// More is asked for than there can be; the message has the numbers.
    LimitExceeded,
    /// The machine did not come up, or died.
    MachineFailed,
    /// A deadline passed.
    TimedOut,
    /// Anything else: a fault of ours or of the host.
    #[serde(other)]
    Internal,
}

impl Failure {
    /// A failure of the given kind.
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The HTTP status that goes with the code.
    pub fn status(&self) -> u16 {
        match self.code {
            FailureCode::InvalidRequest
            | FailureCode::NoSuchUser
            | FailureCode::BadWorkingDirectory
            | FailureCode::LimitExceeded => 400,
            FailureCode::CommandNotFound | FailureCode::CommandNotExecutable => 422,
            FailureCode::NotFound => 404,
            FailureCode::WrongState | FailureCode::PortInUse => 409,
            FailureCode::ResourceExhausted => 507,
            FailureCode::TimedOut => 504,
            FailureCode::MachineFailed | FailureCode::Internal => 500,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
