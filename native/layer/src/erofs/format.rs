//! On-disk structures, little endian; field order and values from the kernel's fs/erofs/erofs_fs.h.

use crate::spool::{BLOCK_BYTES, INODE_BYTES};
use sha2::{Digest, Sha256};

/// Inode numbers ("nid") count these from the metadata's beginning.
pub const SLOT_BYTES: u64 = 32;

const SUPERBLOCK_AT: usize = 1024;
const MAGIC: u32 = 0xe0f5_e1e2;
const BLOCK_BITS: u8 = 12;
/// `EROFS_FEATURE_COMPAT_SB_CHKSUM | EROFS_FEATURE_COMPAT_MTIME`
const FEATURE_COMPAT: u32 = 0x1 | 0x2;

/// What the superblock says.
pub struct Superblock {
    pub root_slot: u16,
    pub inodes: u64,
    pub blocks: u32,
    pub metadata_block: u32,
    pub uuid: [u8; 16],
}

/// The image's first block.
pub fn first_block(superblock: &Superblock) -> [u8; BLOCK_BYTES as usize] {
    let mut block = [0; BLOCK_BYTES as usize];
    let mut put = |at: usize, bytes: &[u8]| {
        block[SUPERBLOCK_AT + at..SUPERBLOCK_AT + at + bytes.len()].copy_from_slice(bytes);
    };
    put(0, &MAGIC.to_le_bytes());
    put(8, &FEATURE_COMPAT.to_le_bytes());
    put(12, &[BLOCK_BITS]);
    put(14, &superblock.root_slot.to_le_bytes());
    put(16, &superblock.inodes.to_le_bytes());
    // The build time (24..36) stays 0: every inode has its own, and the image must not depend on the clock.
    put(36, &superblock.blocks.to_le_bytes());
    put(40, &superblock.metadata_block.to_le_bytes());
    put(44, &superblock.metadata_block.to_le_bytes());
    put(48, &superblock.uuid);
    let checksum = crc32c(&block[SUPERBLOCK_AT..]);
    block[SUPERBLOCK_AT + 4..SUPERBLOCK_AT + 8].copy_from_slice(&checksum.to_le_bytes());
    block
}

/// An image's UUID: from the tar's digest and the version of this writer's layout.
pub fn uuid_of(diff_id: &str) -> [u8; 16] {
    let hash = Sha256::new().chain_update(b"bulkhead layer 1 ").chain_update(diff_id).finalize();
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&hash[..16]);
    // RFC 9562: version 8 (our own scheme), variant 1.
    uuid[6] = (uuid[6] & 0x0f) | 0x80;
    uuid[8] = (uuid[8] & 0x3f) | 0x80;
    uuid
}

/// The kernel's crc32c(~0, …): Castagnoli, reflected, without the final inversion.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(!0, |crc: u32, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}

/// An inode in its extended form, which holds 32-bit owners and a time of its own.
pub struct Inode {
    pub is_inline: bool,
    pub xattr_bytes: u64,
    pub mode: u16,
    pub size: u64,
    /// First block of the content, or the device's number.
    pub block_or_device: u32,
    pub number: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, u32),
    pub links: u32,
}

impl Inode {
    /// The inode's 64 bytes.
    pub fn to_bytes(&self) -> [u8; INODE_BYTES as usize] {
        // Bit 0: extended form; bits 1 to 3: layout, 0 flat, 2 flat with the tail beside the inode.
        let format: u16 = if self.is_inline { 1 | 2 << 1 } else { 1 };
        // The attributes' 12-byte header counts as one, then every 4 bytes. Checked against 16 bits by the reader.
        let xattr_count = if self.xattr_bytes == 0 { 0 } else { (self.xattr_bytes - 12) / 4 + 1 };
        let mut bytes = [0; INODE_BYTES as usize];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &format.to_le_bytes());
        put(2, &(xattr_count as u16).to_le_bytes());
        put(4, &self.mode.to_le_bytes());
        put(8, &self.size.to_le_bytes());
        put(16, &self.block_or_device.to_le_bytes());
        put(20, &self.number.to_le_bytes());
        put(24, &self.uid.to_le_bytes());
        put(28, &self.gid.to_le_bytes());
        put(32, &self.mtime.0.to_le_bytes());
        put(40, &self.mtime.1.to_le_bytes());
        put(44, &self.links.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    #[test]
    fn the_checksum_is_castagnoli() {
        // RFC 3720, B.4: 32 bytes of zeros give 0x8a9136aa (with the final inversion).
        assert_eq!(!crc32c(&[0; 32]), 0x8a91_36aa);
    }
}
