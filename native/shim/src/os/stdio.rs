//! The descriptors of a process: pipes or a terminal, and the tasks that move their bytes.

use super::runc::ChildStdio;
use crate::framing::{HEADER_BYTES, encode_header};
use crate::wall::FramedOutput;
use bulkhead_protocol::{Failure, FailureCode, Resize};
use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

/// Payload of one frame, bytes.
const FRAME_BYTES: usize = 32 * 1024;
/// Chunks on their way to the core, per process.
const CHUNKS: usize = 4;
/// A process has ended but somebody still holds its output open (a background child of an exec): for so long altogether
/// do we wait for more, and so much do we take.
const GRACE: Duration = Duration::from_millis(500);
const GRACE_BYTES: usize = 4 * 1024 * 1024;

nix::ioctl_write_ptr_bad!(set_window_size, libc::TIOCSWINSZ, libc::winsize);

type Descriptor = Arc<AsyncFd<OwnedFd>>;

/// Where writes to stdin go.
#[derive(Clone)]
enum Sink {
    /// Nothing yet: the terminal comes with the start.
    Pending,
    Open(Descriptor),
    Closed,
}

/// Our ends of a process's stdio.
pub struct ProcessStdio {
    terminal: bool,
    sink: watch::Sender<Sink>,
    /// Keeps the chunks of two writers apart.
    writer: tokio::sync::Mutex<()>,
    master: Mutex<Option<Descriptor>>,
    size: Mutex<Option<Resize>>,
    ended: watch::Sender<bool>,
    output: Mutex<Option<FramedOutput>>,
    /// For the terminal that is still to come.
    chunks: Mutex<Option<mpsc::Sender<Bytes>>>,
}

impl ProcessStdio {
    /// Pipes (or, with a terminal, nothing yet), and the child's ends of them.
    pub fn new(terminal: bool, stdin: bool, size: Option<Resize>) -> Result<(Self, ChildStdio), Failure> {
        let (sender, output) = mpsc::channel(CHUNKS);
        let stdio = Self {
            terminal,
            sink: watch::Sender::new(if terminal && stdin { Sink::Pending } else { Sink::Closed }),
            writer: tokio::sync::Mutex::default(),
            master: Mutex::default(),
            size: Mutex::new(size),
            ended: watch::Sender::new(false),
            output: Mutex::new(Some(output)),
            chunks: Mutex::default(),
        };
        let mut child = ChildStdio::default();
        if terminal {
            *stdio.chunks.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
            return Ok((stdio, child));
        }
        let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|cause| failed("make a pipe", &cause));
        if stdin {
            let (theirs, ours) = pipe()?;
            child.stdin = Some(theirs);
            stdio.sink.send_replace(Sink::Open(watched(ours, Interest::WRITABLE)?));
        }
        for (stream, slot) in [(1, &mut child.stdout), (2, &mut child.stderr)] {
            let (ours, theirs) = pipe()?;
            *slot = Some(theirs);
            let reading = read(watched(ours, Interest::READABLE)?, stream, sender.clone(), stdio.ended.subscribe());
            tokio::spawn(reading);
        }
        Ok((stdio, child))
    }

    /// The terminal's master came.
    pub fn attach_terminal(&self, master: OwnedFd) -> Result<(), Failure> {
        let master = watched(master, Interest::READABLE | Interest::WRITABLE)?;
        *self.master.lock().unwrap_or_else(PoisonError::into_inner) = Some(master.clone());
        if let Some(size) = *self.size.lock().unwrap_or_else(PoisonError::into_inner) {
            apply_size(&master, size)?;
        }
        self.sink.send_if_modified(|sink| {
            let pending = matches!(sink, Sink::Pending);
            if pending {
                *sink = Sink::Open(master.clone());
            }
            pending
        });
        if let Some(sender) = self.chunks.lock().unwrap_or_else(PoisonError::into_inner).take() {
            tokio::spawn(read(master, 1, sender, self.ended.subscribe()));
        }
        Ok(())
    }

    /// The framed output; once.
    pub fn take_output(&self) -> Option<FramedOutput> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The process has ended: what is in the pipes is still read, but nobody is waited for.
    pub fn end(&self) {
        self.ended.send_replace(true);
        self.sink.send_replace(Sink::Closed);
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.master.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Sets the terminal's size, now or when it comes.
    pub fn resize(&self, size: Resize) -> Result<(), Failure> {
        *self.size.lock().unwrap_or_else(PoisonError::into_inner) = Some(size);
        match &*self.master.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(master) => apply_size(master, size),
            None => Ok(()),
        }
    }

    /// Writes all of `data`, or says that nobody reads.
    pub async fn write(&self, data: &[u8]) -> Result<(), Failure> {
        let not_read = || Failure::new(FailureCode::WrongState, "stdin is closed");
        let _turn = self.writer.lock().await;
        let mut sink = self.sink.subscribe();
        let open = sink.wait_for(|sink| !matches!(sink, Sink::Pending)).await.map_err(|_| not_read())?.clone();
        let Sink::Open(descriptor) = open else { return Err(not_read()) };
        let mut rest = data;
        while !rest.is_empty() {
            let written = tokio::select! {
                written = descriptor.async_io(Interest::WRITABLE, |descriptor| Ok(nix::unistd::write(descriptor, rest)?)) => written,
                _ = sink.wait_for(|sink| matches!(sink, Sink::Closed)) => return Err(not_read()),
            };
            match written {
                Ok(length) => rest = &rest[length..],
                Err(_) => {
                    self.sink.send_replace(Sink::Closed);
                    return Err(not_read());
                }
            }
        }
        Ok(())
    }

    /// Closes the pipe. A terminal's input has no end of its own, so it stays.
    pub async fn close(&self) {
        if !self.terminal {
            // After what another writer is at.
            let _turn = self.writer.lock().await;
            self.sink.send_replace(Sink::Closed);
        }
    }
}

fn failed(what: &str, cause: &dyn std::fmt::Display) -> Failure {
    Failure::new(FailureCode::Internal, format!("stdio: cannot {what}: {cause}"))
}

fn watched(descriptor: OwnedFd, interest: Interest) -> Result<Descriptor, Failure> {
    fcntl(&descriptor, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|cause| failed("set O_NONBLOCK", &cause))?;
    // SAFETY: an OwnedFd names one open descriptor until it is dropped, which the AsyncFd does after deregistering it.
    unsafe { AsyncFd::register_with_interest(descriptor, interest) }
        .map(Arc::new)
        .map_err(|cause| failed("watch a pipe", &cause))
}

fn apply_size(master: &Descriptor, size: Resize) -> Result<(), Failure> {
    let size = libc::winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is a terminal's master, the pointer is to a winsize that lives over the call.
    unsafe { set_window_size(master.get_ref().as_raw_fd(), &raw const size) }
        .map_err(|cause| failed("set the terminal's size", &cause))?;
    Ok(())
}

/// Reads a descriptor to its end and hands on frames. The buffer exists only while there is something to read.
async fn read(descriptor: Descriptor, stream: u8, chunks: mpsc::Sender<Bytes>, mut ended: watch::Receiver<bool>) {
    let mut grace = GRACE;
    let mut grace_bytes = GRACE_BYTES;
    loop {
        let has_ended = *ended.borrow();
        let ready = if has_ended {
            let began = Instant::now();
            let Ok(ready) = timeout(grace, descriptor.readable()).await else { return };
            grace = grace.saturating_sub(began.elapsed());
            ready
        } else {
            tokio::select! {
                ready = descriptor.readable() => ready,
                _ = ended.wait_for(|ended| *ended) => continue,
            }
        };
        let Ok(mut ready) = ready else { return };
        loop {
            let mut buffer = vec![0; HEADER_BYTES + FRAME_BYTES];
            match nix::unistd::read(descriptor.get_ref(), &mut buffer[HEADER_BYTES..]) {
                Ok(0) => return,
                Ok(length) => {
                    let header = encode_header(stream, u32::try_from(length).unwrap_or(u32::MAX));
                    buffer[..HEADER_BYTES].copy_from_slice(&header);
                    buffer.truncate(HEADER_BYTES + length);
                    if length < FRAME_BYTES / 2 {
                        buffer.shrink_to_fit();
                    }
                    if chunks.send(buffer.into()).await.is_err() {
                        return;
                    }
                    if *ended.borrow() {
                        grace_bytes = grace_bytes.saturating_sub(length);
                        if grace_bytes == 0 {
                            return;
                        }
                    }
                }
                Err(Errno::EAGAIN) => {
                    ready.clear_ready();
                    break;
                }
                Err(Errno::EINTR) => {}
                // EIO: nobody has the terminal open any more.
                Err(_) => return,
            }
        }
    }
}
