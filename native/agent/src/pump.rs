//! From a process's pipe or terminal into its [`Output`].

use crate::launch::read;
use crate::output::{HEADER_BYTES, Output, Stream};
use bytes::{BufMut, BytesMut};
use nix::errno::Errno;
use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

/// Memory that frames are cut from, bytes.
const BLOCK_BYTES: usize = 64 << 10;

/// Least room for a frame's payload before a new block is taken, bytes.
const MIN_PAYLOAD_BYTES: usize = 4 << 10;

/// The moment at which a process is gone, after which its pipes are only drained: another process may hold them open.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    flag: Cell<bool>,
    notify: Notify,
}

impl Gone {
    /// It is gone.
    pub(crate) fn set(&self) {
        self.flag.set(true);
        self.notify.notify_waiters();
    }

    /// Waits for it.
    pub(crate) async fn wait(&self) {
        if !self.flag.get() {
            self.notify.notified().await;
        }
    }
}

/// Reads until the end: that of the pipe, or, once the process is gone, that of what is in it.
pub(crate) async fn pump(source: Rc<AsyncFd<OwnedFd>>, stream: Stream, output: Rc<Output>, gone: Rc<Gone>) {
    let mut block = BytesMut::new();
    let ended = loop {
        output.room().await;
        if block.capacity() < HEADER_BYTES + MIN_PAYLOAD_BYTES {
            block = BytesMut::with_capacity(BLOCK_BYTES);
        }
        block.put_bytes(0, HEADER_BYTES);
        match read_into(source.get_ref(), &mut block) {
            Ok(0) => break true,
            Ok(_) => output.push(stream, block.split()),
            Err(Errno::EINTR) => block.clear(),
            Err(Errno::EAGAIN) => {
                block.clear();
                if gone.flag.get() {
                    break false;
                }
                tokio::select! {
                    biased;
                    ready = source.readable() => match ready {
                        Ok(mut guard) => {
                            // Readiness is only cleared when a read says so: a wake-up between the two is not lost.
                            block.put_bytes(0, HEADER_BYTES);
                            let result = guard.try_io(|fd| read_into(fd.get_ref(), &mut block).map_err(Into::into));
                            match result {
                                Ok(Ok(0)) => break true,
                                Ok(Ok(_)) => output.push(stream, block.split()),
                                Ok(Err(error)) if error.kind() == std::io::ErrorKind::Interrupted => block.clear(),
                                Ok(Err(_)) => break true,
                                Err(_would_block) => block.clear(),
                            }
                        }
                        Err(_) => break true,
                    },
                    () = gone.wait() => {}
                }
            }
            // A terminal whose last process is gone says EIO.
            Err(_) => break true,
        }
    };
    output.finish_source();
    if !ended {
        // Something that the process left behind may go on writing; it must not die of a closed pipe.
        let mut discarded = vec![0; MIN_PAYLOAD_BYTES];
        while read(&source, &mut discarded).await.is_ok_and(|count| count > 0) {}
    }
}

/// Appends to the block what one read gives.
fn read_into(fd: &OwnedFd, block: &mut BytesMut) -> nix::Result<usize> {
    use std::os::fd::AsRawFd;
    let room = block.spare_capacity_mut();
    // SAFETY: the pointer and length are those of the block's spare memory.
    let count = Errno::result(unsafe { libc::read(fd.as_raw_fd(), room.as_mut_ptr().cast(), room.len()) })? as usize;
    // SAFETY: the kernel has just written that many bytes there.
    unsafe { block.set_len(block.len() + count) };
    Ok(count)
}
