//! Directories: blocks of 12-byte entries in the names' byte order, then the names themselves.

use crate::error::Result;
use crate::spool::BLOCK_BYTES;
use crate::tree::{Directory, Kind, NodeId, Tree};

const ENTRY_BYTES: usize = 12;

/// A directory's names in order, `.` and `..` among them.
fn names(directory: &Directory, own: NodeId, parent: NodeId) -> impl Iterator<Item = (&[u8], NodeId)> {
    let mut dots = [(&b"."[..], own), (&b".."[..], parent)].into_iter().peekable();
    let mut children = directory.children.iter().map(|(name, &id)| (&**name, id)).peekable();
    std::iter::from_fn(move || match (dots.peek(), children.peek()) {
        (Some(dot), Some(child)) if child.0 < dot.0 => children.next(),
        (Some(_), _) => dots.next(),
        (None, _) => children.next(),
    })
}

/// Bytes of a directory: whole blocks, and what the last one needs.
pub fn directory_bytes(directory: &Directory) -> u64 {
    let (mut whole, mut used) = (0, 0);
    for (name, _) in names(directory, 0, 0) {
        let bytes = (ENTRY_BYTES + name.len()) as u64;
        if used + bytes > BLOCK_BYTES {
            (whole, used) = (whole + BLOCK_BYTES, 0);
        }
        used += bytes;
    }
    whole + used
}

/// Passes each block of the directory to `write`, full ones padded with zeros, the last one as long as it needs to be.
pub fn write_directory(
    tree: &Tree,
    directory: &Directory,
    own: NodeId,
    parent: NodeId,
    mut write: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut block: Vec<(&[u8], NodeId)> = Vec::new();
    let mut used = 0;
    for (name, id) in names(directory, own, parent) {
        let bytes = ENTRY_BYTES + name.len();
        if used + bytes > BLOCK_BYTES as usize {
            let mut full = block_bytes(tree, &block);
            full.resize(BLOCK_BYTES as usize, 0);
            write(&full)?;
            block.clear();
            used = 0;
        }
        block.push((name, id));
        used += bytes;
    }
    write(&block_bytes(tree, &block))
}

fn block_bytes(tree: &Tree, block: &[(&[u8], NodeId)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BLOCK_BYTES as usize);
    let mut name_at = block.len() * ENTRY_BYTES;
    for (name, id) in block {
        let node = tree.node(*id);
        bytes.extend_from_slice(&node.slot.to_le_bytes());
        bytes.extend_from_slice(&(name_at as u16).to_le_bytes());
        bytes.extend_from_slice(&[file_type(&node.kind), 0]);
        name_at += name.len();
    }
    block.iter().for_each(|(name, _)| bytes.extend_from_slice(name));
    bytes
}

/// `FT_*` of the kernel's include/linux/fs_types.h.
fn file_type(kind: &Kind) -> u8 {
    match kind {
        Kind::File(_) => 1,
        Kind::Directory(_) => 2,
        Kind::Char(_) | Kind::Whiteout => 3,
        Kind::Block(_) => 4,
        Kind::Fifo => 5,
        Kind::Symlink(_) => 7,
        Kind::Gone => 0,
    }
}
