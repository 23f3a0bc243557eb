//! Where contents go while the tar is read: whole blocks into the image, in the tar's order; the short rest of a file
//! (its tail) into scratch, until the place of its inode is known.

use crate::error::{LayerError, Result};
use crate::tar::ContentSink;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

/// Bytes of a block of the image.
pub const BLOCK_BYTES: u64 = 4096;
/// Bytes of the inode itself.
pub const INODE_BYTES: u64 = 64;

/// A tail up to this long stands beside its inode; a longer one gets a block, which wastes less than half of it.
const LONGEST_FILE_TAIL: u64 = BLOCK_BYTES / 2;
/// Bytes written at once.
const WRITE_BYTES: usize = 1 << 20;
/// Tails kept in memory before scratch is used: enough for all of a small layer.
const TAILS_IN_MEMORY_BYTES: usize = 8 << 20;

/// Where a file's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    pub size: u64,
    /// First block of the image, if there is a whole one or the tail has one.
    pub block: u32,
    /// Where the tail is in scratch; [`Content::tail_bytes`] says how long.
    tail_at: Option<u64>,
}

impl Content {
    /// Bytes that stand beside the inode.
    pub fn tail_bytes(&self) -> u64 {
        if self.tail_at.is_some() { self.size % BLOCK_BYTES } else { 0 }
    }

    fn blocks(&self) -> u64 {
        (self.size - self.tail_bytes()).div_ceil(BLOCK_BYTES)
    }
}

/// Writes the image from its first data block on.
pub struct Spool<'a> {
    image: &'a File,
    /// Not yet written; stands at `written`.
    pending: Vec<u8>,
    written: u64,
    tails: Tails<'a>,
}

struct Tails<'a> {
    scratch: &'a File,
    memory: Vec<u8>,
    /// Where `memory` begins.
    written: u64,
}

impl<'a> Spool<'a> {
    /// A spool on two empty files. The first block is the superblock's.
    pub fn new(image: &'a File, scratch: &'a File) -> Self {
        let tails = Tails { scratch, memory: Vec::new(), written: 0 };
        Self { image, pending: Vec::new(), written: BLOCK_BYTES, tails }
    }

    /// The block at which the next content will stand.
    pub fn next_block(&self) -> Result<u32> {
        let block = (self.written + self.pending.len() as u64).div_ceil(BLOCK_BYTES);
        u32::try_from(block).map_err(|_| LayerError::limit("the image would be larger than 16 TiB"))
    }

    /// Takes one file's content; `fill` must give exactly `size` bytes. `xattr_bytes` stand between inode and tail.
    pub fn store(
        &mut self,
        size: u64,
        xattr_bytes: u64,
        fill: impl FnOnce(&mut FileSink<'_, 'a>) -> Result<()>,
    ) -> Result<Content> {
        let tail = size % BLOCK_BYTES;
        let is_inline = tail > 0 && tail <= LONGEST_FILE_TAIL && INODE_BYTES + xattr_bytes + tail <= BLOCK_BYTES;
        let block = self.next_block()?;
        let tail_at = is_inline.then(|| self.tails.written + self.tails.memory.len() as u64);
        let left_bytes = if is_inline { size - tail } else { size };
        fill(&mut FileSink { spool: self, left_bytes })?;
        self.pad()?;
        Ok(Content { size, block: if left_bytes > 0 { block } else { 0 }, tail_at })
    }

    /// Gives the space of a replaced file back. Its blocks read as zeros whether or not the file system can do it.
    pub fn discard(&mut self, content: Content) -> Result<()> {
        let blocks = content.blocks();
        if blocks == 0 {
            return Ok(());
        }
        self.flush()?;
        let (offset, bytes) = (u64::from(content.block) * BLOCK_BYTES, blocks * BLOCK_BYTES);
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: a plain system call on an open descriptor; both numbers are below 2^45.
        let result = unsafe { libc::fallocate(self.image.as_raw_fd(), mode, offset as i64, bytes as i64) };
        if result == 0 {
            return Ok(());
        }
        let zeros = vec![0; (WRITE_BYTES as u64).min(bytes) as usize];
        let mut at = offset;
        while at < offset + bytes {
            let step = (zeros.len() as u64).min(offset + bytes - at) as usize;
            self.image.write_all_at(&zeros[..step], at).map_err(|e| LayerError::from_io("write the image", e))?;
            at += step as u64;
        }
        Ok(())
    }

    /// Appends bytes to the image.
    pub fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let step = bytes.len().min(WRITE_BYTES - self.pending.len());
            self.pending.extend_from_slice(&bytes[..step]);
            bytes = &bytes[step..];
            if self.pending.len() == WRITE_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Fills the current block with zeros.
    pub fn pad(&mut self) -> Result<()> {
        let used = (self.written + self.pending.len() as u64) % BLOCK_BYTES;
        if used > 0 {
            self.append(&[0; BLOCK_BYTES as usize][used as usize..])?;
        }
        Ok(())
    }

    /// Writes the superblock's block and everything pending, and gives the image its length.
    pub fn finish(&mut self, first_block: &[u8; BLOCK_BYTES as usize]) -> Result<u64> {
        self.pad()?;
        self.flush()?;
        self.image.write_all_at(first_block, 0).map_err(|e| LayerError::from_io("write the image", e))?;
        self.image.set_len(self.written).map_err(|e| LayerError::from_io("write the image", e))?;
        Ok(self.written)
    }

    /// Reads a file's tail into `buffer`, which has its length.
    pub fn read_tail(&self, content: &Content, buffer: &mut [u8]) -> Result<()> {
        match content.tail_at {
            Some(at) => self.tails.read(at, buffer),
            None => Ok(()),
        }
    }

    fn zeros(&mut self, mut bytes: u64) -> Result<()> {
        // A long hole is skipped, a short one written.
        if bytes > 2 * WRITE_BYTES as u64 {
            let zeros = vec![0; WRITE_BYTES - self.pending.len()];
            self.append(&zeros)?;
            bytes -= zeros.len() as u64;
            let skipped = bytes - bytes % WRITE_BYTES as u64;
            self.written += skipped;
            bytes -= skipped;
        }
        self.append(&vec![0; bytes as usize])
    }

    fn flush(&mut self) -> Result<()> {
        // The file is new, so what is not written reads as zeros: a bomb of zeros takes no space.
        if self.pending.iter().any(|&byte| byte != 0) {
            let result = self.image.write_all_at(&self.pending, self.written);
            result.map_err(|e| LayerError::from_io("write the image", e))?;
        }
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

impl Tails<'_> {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.memory.extend_from_slice(bytes);
        if self.memory.len() >= TAILS_IN_MEMORY_BYTES {
            let result = self.scratch.write_all_at(&self.memory, self.written);
            result.map_err(|e| LayerError::from_io("write the scratch file", e))?;
            self.written += self.memory.len() as u64;
            self.memory.clear();
        }
        Ok(())
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> Result<()> {
        let on_disk = self.written.saturating_sub(at).min(buffer.len() as u64) as usize;
        let (first, rest) = buffer.split_at_mut(on_disk);
        self.scratch.read_exact_at(first, at).map_err(|e| LayerError::from_io("read the scratch file", e))?;
        let from = (at + on_disk as u64 - self.written.min(at + on_disk as u64)) as usize;
        rest.copy_from_slice(&self.memory[from..from + rest.len()]);
        Ok(())
    }
}

/// Divides a file's content between blocks and tail.
pub struct FileSink<'s, 'a> {
    spool: &'s mut Spool<'a>,
    /// Still to come for the blocks; what follows is tail.
    left_bytes: u64,
}

impl ContentSink for FileSink<'_, '_> {
    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        let (block, tail) = bytes.split_at(self.left_bytes.min(bytes.len() as u64) as usize);
        self.left_bytes -= block.len() as u64;
        self.spool.append(block)?;
        self.spool.tails.append(tail)
    }

    fn zeros(&mut self, bytes: u64) -> Result<()> {
        let block = self.left_bytes.min(bytes);
        self.left_bytes -= block;
        self.spool.zeros(block)?;
        // At most a block less one byte.
        self.spool.tails.append(&vec![0; (bytes - block) as usize])
    }
}
