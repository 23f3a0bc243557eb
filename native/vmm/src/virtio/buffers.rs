//! A descriptor chain as the buffers that it is: first those that the device reads, then those that it writes (§2.7.4.2).

use crate::memory::GuestRam;
use virtio_queue::DescriptorChain;
use vm_memory::{GuestMemoryBackend, VolatileSlice};

/// A chain of a queue.
pub type Chain<'m> = DescriptorChain<&'m GuestRam>;

/// Most pieces of a request: what one `preadv` takes (UIO_MAXIOV). An indirect table could name 65535.
const PIECES_MAX: usize = 1024;

/// Why a chain is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainError {
    /// More pieces than any driver uses.
    TooManyPieces,
    /// A buffer is not in guest memory.
    NotMemory,
    /// A buffer to read comes after one to write.
    OutOfOrder,
}

/// Buffers of one direction.
#[derive(Clone, Debug, Default)]
pub struct Pieces<'m> {
    slices: Vec<VolatileSlice<'m>>,
    bytes: usize,
}

/// A request's buffers.
#[derive(Clone, Debug, Default)]
pub struct Buffers<'m> {
    /// What the driver gives.
    pub readable: Pieces<'m>,
    /// Where the device answers.
    pub writable: Pieces<'m>,
}

impl<'m> Buffers<'m> {
    /// Collects a chain's buffers.
    pub fn parse(chain: Chain<'m>, ram: &'m GuestRam) -> Result<Self, ChainError> {
        let mut buffers = Self::default();
        for descriptor in chain {
            let pieces = if descriptor.is_write_only() {
                &mut buffers.writable
            } else if buffers.writable.slices.is_empty() {
                &mut buffers.readable
            } else {
                return Err(ChainError::OutOfOrder);
            };
            for slice in GuestMemoryBackend::get_slices(ram, descriptor.addr(), descriptor.len() as usize) {
                pieces.push(slice.map_err(|_| ChainError::NotMemory)?)?;
            }
        }
        Ok(buffers)
    }
}

impl<'m> Pieces<'m> {
    fn push(&mut self, slice: VolatileSlice<'m>) -> Result<(), ChainError> {
        if slice.is_empty() {
            return Ok(());
        }
        if self.slices.len() == PIECES_MAX {
            return Err(ChainError::TooManyPieces);
        }
        self.bytes += slice.len();
        self.slices.push(slice);
        Ok(())
    }

    /// How many bytes they are.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Adds those of another chain: several buffers are then filled by one system call.
    pub fn append(&mut self, other: Self) -> Result<(), ChainError> {
        other.slices.into_iter().try_for_each(|slice| self.push(slice))
    }

    /// The bytes from `start` on, at most `count` of them.
    pub fn range(&self, start: usize, count: usize) -> Self {
        let mut found = Self::default();
        let (mut skip, mut left) = (start, count);
        for slice in &self.slices {
            let length = slice.len();
            if skip >= length {
                skip -= length;
                continue;
            }
            let take = left.min(length - skip);
            if let Ok(part) = slice.subslice(skip, take)
                && take > 0
            {
                found.bytes += take;
                found.slices.push(part);
            }
            left -= take;
            skip = 0;
            if left == 0 {
                break;
            }
        }
        found
    }

    /// Copies out of guest memory; how many bytes there were.
    pub fn copy_to(&self, target: &mut [u8]) -> usize {
        let mut done = 0;
        for slice in &self.slices {
            if done == target.len() {
                break;
            }
            done += slice.copy_to(&mut target[done..]);
        }
        done
    }

    /// Copies into guest memory; how many bytes there was room for.
    pub fn copy_from(&self, source: &[u8]) -> usize {
        let mut done = 0;
        for slice in &self.slices {
            let count = slice.len().min(source.len() - done);
            slice.copy_from(&source[done..done + count]);
            done += count;
        }
        done
    }

    /// Fills everything with zeros.
    pub fn clear(&self) {
        for slice in &self.slices {
            // SAFETY: pointer and length are a slice of mapped guest memory; the guest may write there too, which harms only itself.
            unsafe { slice.ptr_guard_mut().as_ptr().write_bytes(0, slice.len()) };
        }
    }

    /// As system calls take them. They are valid for as long as the guest's memory is borrowed.
    pub fn io_vectors(&self) -> Vec<libc::iovec> {
        self.slices
            .iter()
            .map(|slice| libc::iovec { iov_base: slice.ptr_guard_mut().as_ptr().cast(), iov_len: slice.len() })
            .collect()
    }
}
