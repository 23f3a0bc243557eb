//! Calls of the runc program.

use crate::reaper::{Child, Reaper};
use bulkhead_protocol::{Failure, FailureCode};
use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Most of runc's log that is read back after a failure.
const LOG_BYTES_MAX: usize = 256 * 1024;

/// The runc program with a state directory of its own.
pub struct Runc {
    program: String,
    directory: PathBuf,
    reaper: Reaper,
    calls: AtomicU32,
}

/// What a call's process gets as descriptors 0, 1 and 2; /dev/null where nothing is given.
#[derive(Default)]
pub struct ChildStdio {
    /// stdin.
    pub stdin: Option<OwnedFd>,
    /// stdout.
    pub stdout: Option<OwnedFd>,
    /// stderr.
    pub stderr: Option<OwnedFd>,
}

impl Runc {
    /// runc with everything it writes below `directory`.
    pub fn new(program: &str, directory: &Path, reaper: Reaper) -> Self {
        Self { program: program.to_owned(), directory: directory.to_owned(), reaper, calls: AtomicU32::new(0) }
    }

    /// runc's own state of its containers.
    pub fn root(&self) -> PathBuf {
        self.directory.join("runc")
    }

    /// Starts a call. runc's words go to a file of their own, because its stderr is the container's.
    pub fn spawn<I>(&self, arguments: I, stdio: ChildStdio) -> Result<Call, Failure>
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        let log = self.directory.join(format!("runc-{}.log", self.calls.fetch_add(1, Ordering::Relaxed)));
        let or_null = |descriptor: Option<OwnedFd>| descriptor.map_or_else(Stdio::null, Stdio::from);
        let mut command = Command::new(&self.program);
        command
            .arg("--root")
            .arg(self.root())
            .arg("--log")
            .arg(&log)
            .args(["--log-format", "json"])
            .args(arguments)
            .stdin(or_null(stdio.stdin))
            .stdout(or_null(stdio.stdout))
            .stderr(or_null(stdio.stderr));
        let child = self
            .reaper
            .spawn(&mut command)
            .map_err(|cause| Failure::new(FailureCode::Internal, format!("cannot run {}: {cause}", self.program)))?;
        Ok(Call { child, log })
    }

    /// A call whose output is of no interest.
    pub async fn call<I>(&self, arguments: I) -> Result<(), Failure>
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        self.spawn(arguments, ChildStdio::default())?.finish().await
    }
}

/// A running call.
pub struct Call {
    child: Child,
    log: PathBuf,
}

impl Call {
    /// Waits for its end; a failure carries runc's last error.
    pub async fn finish(mut self) -> Result<(), Failure> {
        let code = self.child.wait().await;
        let said = if code == 0 { None } else { Some(last_error(&self.log)) };
        let _ = fs::remove_file(&self.log);
        match said {
            None => Ok(()),
            Some(Some(message)) => Err(Failure::new(classify(&message), message)),
            Some(None) => Err(Failure::new(FailureCode::Internal, format!("runc ended with {code} and no message"))),
        }
    }
}

fn last_error(log: &Path) -> Option<String> {
    let content = fs::read(log).ok()?;
    let tail = &content[content.len().saturating_sub(LOG_BYTES_MAX)..];
    tail.split(|byte| *byte == b'\n').rev().find_map(|line| {
        let entry: serde_json::Value = serde_json::from_slice(line).ok()?;
        let level = entry["level"].as_str()?;
        (level == "error" || level == "fatal").then(|| entry["msg"].as_str().map(str::to_owned))?
    })
}

/// The kind of failure. runc has one exit code for all, so its text is all there is to go by (runc 1.1, libcontainer
/// `standard_init_linux.go`, `setns_init_linux.go`, `init_linux.go`).
fn classify(message: &str) -> FailureCode {
    let says = |text: &str| message.contains(text);
    if says("no space left on device") || says("cannot allocate memory") || says("resource temporarily unavailable") {
        FailureCode::ResourceExhausted
    } else if says("chdir to cwd") || says("container init: mkdir /") || says("Cwd must be an absolute path") {
        FailureCode::BadWorkingDirectory
    } else if says("exec: \"") || says("exec /") {
        if says("permission denied") || says("is a directory") || says("not a directory") || says("exec format error") {
            FailureCode::CommandNotExecutable
        } else if says("executable file not found") || says("no such file or directory") {
            FailureCode::CommandNotFound
        } else {
            FailureCode::Internal
        }
    } else {
        FailureCode::Internal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_mount_source_is_no_missing_command() {
        let start = "runc create failed: unable to start container process: ";
        let kind = |rest: &str| classify(&format!("{start}{rest}"));
        assert_eq!(kind(r#"exec: "nope": executable file not found in $PATH"#), FailureCode::CommandNotFound);
        assert_eq!(kind(r#"exec: "/nope": stat /nope: no such file or directory"#), FailureCode::CommandNotFound);
        assert_eq!(kind(r#"exec: "/etc/passwd": permission denied"#), FailureCode::CommandNotExecutable);
        assert_eq!(
            kind(r#"chdir to cwd ("/etc/passwd") set in config.json failed: not a directory"#),
            FailureCode::BadWorkingDirectory
        );
        assert_eq!(
            kind("error during container init: mkdir /etc/passwd: not a directory"),
            FailureCode::BadWorkingDirectory
        );
        assert_eq!(
            kind(r#"error during container init: error mounting "/x" to rootfs at "/y": no such file or directory"#),
            FailureCode::Internal
        );
    }
}
