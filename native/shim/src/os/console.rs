//! How a terminal's master comes from runc: as a descriptor over a unix socket.

use bulkhead_protocol::{Failure, FailureCode};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use tokio::io::Interest;
use tokio::net::UnixListener;

/// A socket that waits for one master.
pub struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ConsoleSocket {
    /// Listens.
    pub fn bind(path: &Path) -> Result<Self, Failure> {
        let listener = UnixListener::bind(path).map_err(|cause| failed(&cause))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Where runc must connect to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the master.
    pub async fn receive(&self) -> Result<OwnedFd, Failure> {
        let (stream, _) = self.listener.accept().await.map_err(|cause| failed(&cause))?;
        stream
            .async_io(Interest::READABLE, || {
                // runc sends the terminal's name along.
                let mut name = [0; 4096];
                let mut data = [IoSliceMut::new(&mut name)];
                let mut control = nix::cmsg_space!([RawFd; 1]);
                let message = recvmsg::<()>(
                    stream.as_raw_fd(),
                    &mut data,
                    Some(&mut control),
                    MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT,
                )?;
                let mut master = None;
                for part in message.cmsgs()? {
                    if let ControlMessageOwned::ScmRights(descriptors) = part {
                        for descriptor in descriptors {
                            // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
                            master = Some(unsafe { OwnedFd::from_raw_fd(descriptor) });
                        }
                    }
                }
                master.ok_or_else(|| Errno::ENOMSG.into())
            })
            .await
            .map_err(|cause| failed(&cause))
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn failed(cause: &dyn std::fmt::Display) -> Failure {
    Failure::new(FailureCode::Internal, format!("cannot get the terminal from runc: {cause}"))
}
