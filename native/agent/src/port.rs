//! The console port that carries the connection to the host.
//!
//! Such a port has no connection boundary. Two things stand for one: the host side's being closed, which the kernel
//! tells as a hang-up, and the preamble, which opens a session.

use crate::failure::{Doing, Result};
use bulkhead_protocol::{AGENT_PORT, Failure, FailureCode, PREAMBLE_BYTES, PREAMBLE_MAGIC};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How long the port may take to appear after the modules were loaded.
const PORT_DEADLINE: Duration = Duration::from_secs(10);

/// What is read at a time while looking for a preamble, bytes.
const JUNK_BYTES: usize = 64 << 10;

/// The open port, between sessions too.
pub(crate) struct Port {
    fd: OwnedFd,
    /// The last bytes of the session before: a preamble that came in its place, when the kernel's notice of the closed
    /// host side was overtaken by its being opened again.
    leftover: Vec<u8>,
}

impl Port {
    /// Finds the port by its name and opens it.
    pub(crate) fn open() -> Result<Self> {
        let deadline = Instant::now() + PORT_DEADLINE;
        loop {
            if let Some(path) = find_port() {
                use std::os::unix::fs::OpenOptionsExt;
                let opened = std::fs::File::options()
                    .read(true)
                    .write(true)
                    .custom_flags(libc::O_NONBLOCK)
                    .open(&path)
                    .doing(|| path)?;
                return Ok(Self { fd: opened.into(), leftover: Vec::new() });
            }
            if Instant::now() >= deadline {
                return Err(Failure::new(FailureCode::MachineFailed, format!("no console port named {AGENT_PORT}")));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until the host opens a session, and answers its preamble.
    pub(crate) async fn session(&mut self) -> Result<Session<'_>> {
        let mut window = std::mem::take(&mut self.leftover);
        let mut buffer = vec![0; JUNK_BYTES];
        loop {
            self.wait_for_host().await?;
            // SAFETY: the descriptor is borrowed from this port for as long as the session lives.
            let session =
                unsafe { AsyncFd::register_with_interest(self.fd.as_fd(), Interest::READABLE | Interest::WRITABLE) };
            let session = session.map_err(io::Error::from).doing(|| "console port")?;
            let mut session = Session { fd: session, last: Vec::new() };
            loop {
                if let Some(preamble) = preamble_at_end(&window) {
                    session.write_all(&preamble).await.doing(|| "console port")?;
                    // Answered: it must not be taken for that of the next session.
                    session.last.clear();
                    return Ok(session);
                }
                match session.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(count) => keep_last(&mut window, &buffer[..count]),
                }
            }
            window.clear();
        }
    }

    /// Notes what a session ended with.
    pub(crate) fn end_session(&mut self, last: Vec<u8>) {
        self.leftover = last;
    }

    /// Waits, without looking again and again, until the host's side is open. The event loop cannot do that on its own:
    /// it takes a hang-up for final.
    async fn wait_for_host(&self) -> Result<()> {
        let inner = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).doing(|| "epoll")?;
        inner
            .add(&self.fd, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET, 0))
            .doing(|| "epoll")?;
        // SAFETY: the descriptor is owned by what is registered.
        let inner = unsafe { AsyncFd::register_with_interest(inner.0, Interest::READABLE) };
        let inner = inner.map_err(io::Error::from).doing(|| "epoll")?;
        loop {
            let mut guard = inner.readable().await.doing(|| "epoll")?;
            let mut events = [EpollEvent::empty()];
            // SAFETY: the array has room for the one event that is asked for.
            let count = Errno::result(unsafe {
                use std::os::fd::AsRawFd;
                libc::epoll_wait(inner.get_ref().as_raw_fd(), events.as_mut_ptr().cast(), 1, 0)
            })
            .doing(|| "epoll")?;
            if count == 0 {
                guard.clear_ready();
            } else if !events[0].events().contains(EpollFlags::EPOLLHUP) {
                return Ok(());
            }
        }
    }
}

/// The device of the port with the agent's name.
fn find_port() -> Option<String> {
    std::fs::read_dir("/sys/class/virtio-ports").ok()?.flatten().find_map(|entry| {
        let name = std::fs::read_to_string(entry.path().join("name")).ok()?;
        let path = format!("/dev/{}", entry.file_name().to_str()?);
        (name.trim_end() == AGENT_PORT && std::path::Path::new(&path).exists()).then_some(path)
    })
}

/// Appends, and keeps as many bytes as a preamble has.
fn keep_last(window: &mut Vec<u8>, bytes: &[u8]) {
    window.extend_from_slice(&bytes[bytes.len().saturating_sub(PREAMBLE_BYTES)..]);
    let surplus = window.len().saturating_sub(PREAMBLE_BYTES);
    window.drain(..surplus);
}

/// The preamble, if the window is one. The host sends nothing after it until it is answered, so it is always the end.
fn preamble_at_end(window: &[u8]) -> Option<[u8; PREAMBLE_BYTES]> {
    let window: [u8; PREAMBLE_BYTES] = window.try_into().ok()?;
    window.starts_with(PREAMBLE_MAGIC).then_some(window)
}

/// One session: a byte stream that ends when the host's side is closed.
pub(crate) struct Session<'a> {
    fd: AsyncFd<std::os::fd::BorrowedFd<'a>>,
    last: Vec<u8>,
}

impl Session<'_> {
    /// The last bytes that were read.
    pub(crate) fn take_last(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.last)
    }

    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        std::future::poll_fn(|context| self.poll_read_bytes(context, buffer)).await
    }

    async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = std::future::poll_fn(|context| self.poll_write_bytes(context, bytes)).await?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    fn poll_read_bytes(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(context))?;
            match nix::unistd::read(guard.get_inner(), buffer) {
                Ok(count) => {
                    keep_last(&mut self.last, &buffer[..count]);
                    return Poll::Ready(Ok(count));
                }
                Err(Errno::EINTR) => {}
                // A hang-up stays on record in the event loop: the session is over, whatever the port does now.
                Err(Errno::EAGAIN) if guard.ready().is_read_closed() => return Poll::Ready(Ok(0)),
                Err(Errno::EAGAIN) => guard.clear_ready(),
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
    }

    fn poll_write_bytes(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.fd.poll_write_ready(context))?;
            match nix::unistd::write(guard.get_inner(), bytes) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if guard.ready().is_write_closed() => {
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                }
                Err(Errno::EAGAIN) => guard.clear_ready(),
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
    }
}

impl hyper::rt::Read for Session<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // SAFETY: read(2) only writes to it, and only as many bytes as it says count as filled.
        let room = unsafe { buffer.as_mut() };
        let room: *mut [u8] = room as *mut [std::mem::MaybeUninit<u8>] as *mut [u8];
        // SAFETY: as above; the slice is not read before it is written.
        let count = ready!(self.poll_read_bytes(context, unsafe { &mut *room }))?;
        // SAFETY: that many bytes were just written.
        unsafe { buffer.advance(count) };
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Session<'_> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_bytes(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preamble_is_found_behind_junk_in_any_pieces() {
        let mut window = Vec::new();
        for piece in [b"junk BULKHEAD and more".as_slice(), b"BULK", b"HEAD1234", b"5678"] {
            assert!(preamble_at_end(&window).is_none());
            keep_last(&mut window, piece);
        }
        assert_eq!(preamble_at_end(&window), Some(*b"BULKHEAD12345678"));
    }

    #[test]
    fn bytes_behind_a_preamble_make_it_part_of_something_else() {
        let mut window = Vec::new();
        keep_last(&mut window, b"BULKHEAD12345678x");
        assert!(preamble_at_end(&window).is_none());
    }
}
