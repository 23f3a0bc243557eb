//! Where each inode stands. An inode's tail must not cross a block's border, and related inodes should share blocks,
//! so inodes are put, in the order of a walk, into the first of a few open blocks that has room.

use super::format::SLOT_BYTES;
use crate::spool::BLOCK_BYTES;
use std::collections::VecDeque;

/// Open blocks at a time. More of them fill better and scatter more.
const OPEN_BLOCKS: usize = 8;

/// Hands out places in the metadata.
pub struct Places {
    /// Block, and bytes used in it.
    open: VecDeque<(u64, u64)>,
    blocks: u64,
}

impl Places {
    /// The first slot stays empty: inode number 0 is skipped by readdir in some C libraries.
    pub fn new() -> Self {
        Self { open: VecDeque::from([(0, SLOT_BYTES)]), blocks: 1 }
    }

    /// A place for an inode with its attributes and tail; gives its slot. What is larger than a block has no tail, and
    /// may cross borders.
    pub fn place(&mut self, bytes: u64) -> u64 {
        let bytes = bytes.next_multiple_of(SLOT_BYTES);
        if let Some((block, used)) = self.open.iter_mut().find(|(_, used)| *used + bytes <= BLOCK_BYTES) {
            let at = *block * BLOCK_BYTES + *used;
            *used += bytes;
            return at / SLOT_BYTES;
        }
        let first = self.blocks;
        self.blocks += bytes.div_ceil(BLOCK_BYTES);
        if self.open.len() == OPEN_BLOCKS {
            self.open.pop_front();
        }
        let used = (bytes - 1) % BLOCK_BYTES + 1;
        self.open.push_back((self.blocks - 1, used));
        first * BLOCK_BYTES / SLOT_BYTES
    }
}
