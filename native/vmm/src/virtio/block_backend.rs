//! What a disk's bytes are: read-only files one after the other, one file, or nothing yet.

use crate::virtio::buffers::Pieces;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;

/// Sector of the virtio protocol, bytes.
pub const SECTOR_BYTES: u64 = 512;

/// A part of a read-only device: `bytes` of a file.
#[derive(Debug)]
pub struct Extent {
    /// The file.
    pub file: File,
    /// Where in it the part begins.
    pub offset: u64,
    /// How long it is; a multiple of 512.
    pub bytes: u64,
}

/// The bytes of a disk.
#[derive(Debug)]
pub enum Backend {
    /// Nobody has the disk yet: it reads as zeros and takes no writes. It has a size all the same, for the guest sees that for good.
    Empty {
        /// Size, bytes.
        bytes: u64,
        /// What comes in its place is only read.
        read_only: bool,
    },
    /// Files one after the other, read-only.
    Extents {
        /// The parts: where each begins on the device, and what it is.
        extents: Vec<(u64, Extent)>,
        /// Size that the guest sees; beyond the last part are zeros.
        bytes: u64,
    },
    /// One file or block device.
    Raw {
        /// The file.
        file: File,
        /// Its size, bytes.
        bytes: u64,
        /// Writes are refused.
        read_only: bool,
    },
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

/// Size of a file or block device.
fn size_of(file: &File) -> io::Result<u64> {
    use std::io::{Seek, SeekFrom};
    let metadata = file.metadata()?;
    if metadata.file_type().is_block_device() { (&*file).seek(SeekFrom::End(0)) } else { Ok(metadata.len()) }
}

impl Backend {
    /// Files one after the other. Each must be as long as it is said to be. `bytes` is the size of the whole, at least their sum.
    pub fn from_extents(list: Vec<Extent>, bytes: Option<u64>) -> io::Result<Self> {
        let mut start = 0_u64;
        let mut extents = Vec::with_capacity(list.len());
        for (index, extent) in list.into_iter().enumerate() {
            let end = extent.offset.checked_add(extent.bytes);
            let length = size_of(&extent.file)?;
            if extent.bytes == 0 || !extent.bytes.is_multiple_of(SECTOR_BYTES) || end.is_none_or(|end| end > length) {
                return Err(invalid(format!(
                    "extent {index}: {} bytes from {} on of a file of {length} bytes are not possible",
                    extent.bytes, extent.offset
                )));
            }
            let next = start.checked_add(extent.bytes).ok_or_else(|| invalid(format!("extent {index}: too large")))?;
            extents.push((start, extent));
            start = next;
        }
        let bytes = bytes.unwrap_or(start);
        if bytes < start || !bytes.is_multiple_of(SECTOR_BYTES) {
            return Err(invalid(format!("a device of {bytes} bytes does not hold extents of {start}")));
        }
        Ok(Self::Extents { extents, bytes })
    }

    /// One file.
    pub fn from_file(file: File, read_only: bool) -> io::Result<Self> {
        let bytes = size_of(&file)? / SECTOR_BYTES * SECTOR_BYTES;
        if bytes == 0 {
            return Err(invalid("the disk's file is empty".into()));
        }
        // SAFETY: a plain query of an open descriptor.
        let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
        if !read_only && flags & libc::O_ACCMODE != libc::O_RDWR {
            return Err(invalid("the disk's file is not open for writing".into()));
        }
        Ok(Self::Raw { file, bytes, read_only })
    }

    /// Size, bytes.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Empty { bytes, .. } | Self::Extents { bytes, .. } | Self::Raw { bytes, .. } => *bytes,
        }
    }

    /// Whether writes are refused.
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::Raw { read_only, .. } | Self::Empty { read_only, .. } => *read_only,
            Self::Extents { .. } => true,
        }
    }

    /// Looks at the size of the file again. A disk that is in use does not shrink.
    pub fn refresh_size(&mut self) -> io::Result<()> {
        let Self::Raw { file, bytes, .. } = self else {
            return Err(invalid("only a disk that is one file has a size to change".into()));
        };
        let now = size_of(file)? / SECTOR_BYTES * SECTOR_BYTES;
        if now < *bytes {
            return Err(invalid(format!("the disk has {bytes} bytes and is in use; it cannot shrink to {now}")));
        }
        *bytes = now;
        Ok(())
    }

    /// Fills buffers from the device.
    pub fn read(&self, offset: u64, target: &Pieces<'_>) -> io::Result<()> {
        self.check(offset, target.len() as u64)?;
        match self {
            Self::Empty { .. } => {
                target.clear();
                Ok(())
            }
            Self::Raw { file, .. } => transfer(libc::preadv, file, offset, target),
            Self::Extents { extents, .. } => read_extents(extents, offset, target),
        }
    }

    /// Writes buffers to the device.
    pub fn write(&self, offset: u64, source: &Pieces<'_>) -> io::Result<()> {
        let file = self.writable()?;
        self.check(offset, source.len() as u64)?;
        transfer(libc::pwritev, file, offset, source)
    }

    /// Everything that was written is on the disk.
    pub fn flush(&self) -> io::Result<()> {
        match self {
            Self::Raw { file, read_only: false, .. } => file.sync_data(),
            _ => Ok(()),
        }
    }

    /// The range reads as zeros; with `punch` its room is given back.
    pub fn zero(&self, offset: u64, bytes: u64, punch: bool) -> io::Result<()> {
        let file = self.writable()?;
        self.check(offset, bytes)?;
        let mode = if punch { libc::FALLOC_FL_PUNCH_HOLE } else { libc::FALLOC_FL_ZERO_RANGE };
        let (start, length) = (offset as i64, bytes as i64);
        // SAFETY: plain numbers on an open descriptor.
        let result = unsafe { libc::fallocate(file.as_raw_fd(), mode | libc::FALLOC_FL_KEEP_SIZE, start, length) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn writable(&self) -> io::Result<&File> {
        match self {
            Self::Raw { file, read_only: false, .. } => Ok(file),
            _ => Err(errno(libc::EROFS)),
        }
    }

    fn check(&self, offset: u64, bytes: u64) -> io::Result<()> {
        match offset.checked_add(bytes) {
            Some(end) if end <= self.bytes() => Ok(()),
            _ => Err(errno(libc::EINVAL)),
        }
    }
}

fn read_extents(extents: &[(u64, Extent)], offset: u64, target: &Pieces<'_>) -> io::Result<()> {
    let mut done = 0;
    while done < target.len() {
        let at = offset + done as u64;
        let index = extents.partition_point(|(start, _)| *start <= at);
        let found = index.checked_sub(1).and_then(|index| extents.get(index));
        let found = found.filter(|(start, extent)| at - start < extent.bytes);
        let Some((start, extent)) = found else {
            target.range(done, usize::MAX).clear();
            return Ok(());
        };
        let within = at - start;
        let count = (target.len() - done).min(usize::try_from(extent.bytes - within).unwrap_or(usize::MAX));
        transfer(libc::preadv, &extent.file, extent.offset + within, &target.range(done, count))?;
        done += count;
    }
    Ok(())
}

type VectorCall = unsafe extern "C" fn(i32, *const libc::iovec, i32, i64) -> isize;

/// Transfers everything, however many calls that takes. A file that ends early is an error: it changed behind our back.
fn transfer(call: VectorCall, file: &File, offset: u64, pieces: &Pieces<'_>) -> io::Result<()> {
    let mut done = 0;
    let mut rest = pieces.io_vectors();
    while done < pieces.len() {
        // SAFETY: the vectors are guest memory that the pieces borrow; there are at most UIO_MAXIOV of them.
        let count = unsafe { call(file.as_raw_fd(), rest.as_ptr(), rest.len() as i32, (offset + done as u64) as i64) };
        match usize::try_from(count) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => done += count,
            Err(_) => {
                let cause = io::Error::last_os_error();
                if cause.kind() != io::ErrorKind::Interrupted {
                    return Err(cause);
                }
            }
        }
        if done < pieces.len() {
            rest = pieces.range(done, usize::MAX).io_vectors();
        }
    }
    Ok(())
}
