//! A console port's two languages: control messages with the driver, bytes between its buffers and a socket.

use crate::virtio::buffers::{Buffers, Pieces};
use crate::virtio::device::{Active, Broken};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use virtio_queue::{QueueOwnedT, QueueT};

/// Buffers that one read fills.
const READ_BUFFERS_MAX: usize = 64;
/// Control events (§5.3.6.2).
pub(crate) mod event {
    pub const DEVICE_READY: u16 = 0;
    pub const PORT_ADD: u16 = 1;
    pub const PORT_READY: u16 = 3;
    pub const PORT_OPEN: u16 = 6;
    pub const PORT_NAME: u16 = 7;
}

/// `struct virtio_console_control`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ControlMessage {
    pub(crate) id: u32,
    pub(crate) event: u16,
    pub(crate) value: u16,
}

impl ControlMessage {
    pub(crate) fn parse(bytes: [u8; 8]) -> Self {
        Self {
            id: u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            event: u16::from_le_bytes([bytes[4], bytes[5]]),
            value: u16::from_le_bytes([bytes[6], bytes[7]]),
        }
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        [self.id.to_le_bytes().as_slice(), &self.event.to_le_bytes(), &self.value.to_le_bytes()].concat()
    }
}

/// What a read brought.
pub(crate) enum Received {
    Bytes,
    Nothing,
    End,
}

/// One read into as many buffers as the driver has put there.
pub(crate) fn receive_once(stream: &OwnedFd, index: usize, active: &mut Active<'_>) -> Result<Received, Broken> {
    let ram = active.ram;
    let queue = &mut active.queues[index];
    let mut buffers: Vec<(u16, usize)> = Vec::new();
    let mut room = Pieces::default();
    loop {
        queue.disable_notification(ram)?;
        while buffers.len() < READ_BUFFERS_MAX {
            let Some(chain) = queue.iter(ram)?.next() else { break };
            let head = chain.head_index();
            let pieces = Buffers::parse(chain, ram).map(|buffers| buffers.writable).unwrap_or_default();
            let bytes = pieces.len();
            if room.append(pieces).is_err() {
                queue.go_to_previous_position();
                break;
            }
            buffers.push((head, bytes));
        }
        if !buffers.is_empty() || !queue.enable_notification(ram)? {
            break;
        }
    }
    if room.is_empty() {
        // Buffers without room would be offered for ever.
        for (head, _) in &buffers {
            queue.add_used(ram, *head, 0)?;
        }
        return Ok(Received::Nothing);
    }
    let vectors = room.io_vectors();
    // SAFETY: the vectors are guest memory that the pieces borrow, at most UIO_MAXIOV of them.
    let count = unsafe { libc::readv(stream.as_raw_fd(), vectors.as_ptr(), vectors.len() as i32) };
    let Ok(mut left) = usize::try_from(count) else {
        let cause = io::Error::last_os_error();
        buffers.iter().for_each(|_| queue.go_to_previous_position());
        return Ok(match cause.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Received::Nothing,
            _ => Received::End,
        });
    };
    let used = used_buffers(&buffers, left);
    for (head, bytes) in &buffers[..used] {
        let filled = left.min(*bytes);
        queue.add_used(ram, *head, filled as u32)?;
        left -= filled;
    }
    buffers[used..].iter().for_each(|_| queue.go_to_previous_position());
    if used > 0 && queue.needs_notification(ram)? {
        active.interrupt.tell_used();
    }
    Ok(if count == 0 { Received::End } else { Received::Bytes })
}

/// How many buffers hold this many bytes.
fn used_buffers(buffers: &[(u16, usize)], bytes: usize) -> usize {
    let mut left = bytes;
    buffers
        .iter()
        .take_while(|(_, room)| {
            left > 0 && {
                left = left.saturating_sub(*room);
                true
            }
        })
        .count()
}

pub(crate) fn send(stream: &OwnedFd, pieces: &Pieces<'_>) -> io::Result<usize> {
    let vectors = pieces.io_vectors();
    // SAFETY: a zeroed message header is one without address and control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vectors.as_ptr().cast_mut();
    message.msg_iovlen = vectors.len();
    // SAFETY: the vectors are guest memory that the pieces borrow, at most UIO_MAXIOV of them.
    let count = unsafe { libc::sendmsg(stream.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

pub(crate) fn make_nonblocking(stream: &OwnedFd) -> io::Result<()> {
    // SAFETY: plain flags on an open descriptor.
    if unsafe { libc::fcntl(stream.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
