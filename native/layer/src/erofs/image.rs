//! Puts the image together.

use super::directory::{directory_bytes, write_directory};
use super::format::{Inode, SLOT_BYTES, Superblock, first_block, uuid_of};
use super::place::Places;
use super::xattr::{write_xattrs, xattr_body_bytes};
use crate::error::{LayerError, Result};
use crate::spool::{BLOCK_BYTES, INODE_BYTES, Spool};
use crate::tree::{Directory, Kind, Node, NodeId, ROOT, Tree};

/// One inode to write, in the order of the walk.
struct Placed {
    id: NodeId,
    parent: NodeId,
    /// Content that is not in the spool: a directory's or a link's.
    size: u64,
    block: u32,
    subdirectories: u32,
}

impl Placed {
    fn tail_bytes(&self, node: &Node) -> u64 {
        match &node.kind {
            Kind::File(content) => content.tail_bytes(),
            kind => own_tail_bytes(self.size, inode_bytes(node, kind)),
        }
    }
}

/// The tail of a directory or link stands beside the inode whenever it fits.
fn own_tail_bytes(size: u64, inode_bytes: u64) -> u64 {
    let tail = size % BLOCK_BYTES;
    if inode_bytes + tail <= BLOCK_BYTES { tail } else { 0 }
}

/// The inode and its attributes.
fn inode_bytes(node: &Node, kind: &Kind) -> u64 {
    INODE_BYTES + xattr_body_bytes(node.xattrs.as_deref().unwrap_or_default(), is_opaque(kind))
}

fn is_opaque(kind: &Kind) -> bool {
    matches!(kind, Kind::Directory(directory) if directory.is_opaque)
}

/// Writes everything but the file contents, which are there already. Gives the image's bytes.
pub fn write_image(mut tree: Tree, mut spool: Spool<'_>, diff_id: &str) -> Result<u64> {
    let mut placed = place_all(&mut tree);
    write_blocks(&tree, &mut placed, &mut spool)?;
    let metadata_block = spool.next_block()?;
    let inodes = placed.len() as u64;
    write_metadata(&tree, placed, &mut spool)?;
    spool.pad()?;
    let superblock = Superblock {
        // Placed first, so within the first two blocks or at the start of a larger run.
        root_slot: tree.node(ROOT).slot as u16,
        inodes,
        blocks: spool.next_block()?,
        metadata_block,
        uuid: uuid_of(diff_id),
    };
    spool.finish(&first_block(&superblock))
}

/// Walks the tree, a directory's files right behind it, and gives every inode its slot.
fn place_all(tree: &mut Tree) -> Vec<Placed> {
    let mut places = Places::new();
    let mut placed = Vec::new();
    let mut directories = vec![(ROOT, ROOT)];
    while let Some((id, parent)) = directories.pop() {
        let (children, at) = place_directory(tree, &mut places, &mut placed, id, parent);
        let before = directories.len();
        for child in children {
            match &tree.node(child).kind {
                Kind::Directory(_) => directories.push((child, id)),
                _ => place_file(tree, &mut places, &mut placed, child, id),
            }
        }
        if let Some(own) = placed.get_mut(at) {
            own.subdirectories = (directories.len() - before) as u32;
        }
        directories[before..].reverse();
    }
    placed
}

fn place_directory(
    tree: &mut Tree,
    places: &mut Places,
    placed: &mut Vec<Placed>,
    id: NodeId,
    parent: NodeId,
) -> (Vec<NodeId>, usize) {
    let node = &mut tree.nodes[id as usize];
    let Kind::Directory(directory) = &node.kind else { return (Vec::new(), placed.len()) };
    let size = directory_bytes(directory);
    let children = directory.children.values().copied().collect();
    let bytes = inode_bytes(node, &node.kind);
    node.slot = places.place(bytes + own_tail_bytes(size, bytes));
    placed.push(Placed { id, parent, size, block: 0, subdirectories: 0 });
    (children, placed.len() - 1)
}

fn place_file(tree: &mut Tree, places: &mut Places, placed: &mut Vec<Placed>, id: NodeId, parent: NodeId) {
    let node = &mut tree.nodes[id as usize];
    // A file with several names is placed at the first.
    if node.slot != 0 {
        return;
    }
    let size = if let Kind::Symlink(target) = &node.kind { target.len() as u64 } else { 0 };
    let mut inode = Placed { id, parent, size, block: 0, subdirectories: 0 };
    if let Kind::File(content) = &node.kind {
        inode.size = content.size;
        inode.block = content.block;
    }
    let bytes = inode_bytes(node, &node.kind) + inode.tail_bytes(node);
    node.slot = places.place(bytes);
    placed.push(inode);
}

/// Writes the whole blocks of directories and links, those that do not fit beside their inode.
fn write_blocks(tree: &Tree, placed: &mut [Placed], spool: &mut Spool<'_>) -> Result<()> {
    for inode in placed {
        let node = tree.node(inode.id);
        let blocks_bytes = inode.size - inode.tail_bytes(node);
        if blocks_bytes == 0 || matches!(node.kind, Kind::File(_)) {
            continue;
        }
        inode.block = spool.next_block()?;
        match &node.kind {
            Kind::Directory(directory) => {
                let mut left = blocks_bytes;
                write_directory(tree, directory, inode.id, inode.parent, |block| {
                    let step = left.min(block.len() as u64);
                    left -= step;
                    spool.append(&block[..step as usize])
                })?;
            }
            Kind::Symlink(target) => spool.append(target)?,
            _ => {}
        }
        spool.pad()?;
    }
    Ok(())
}

/// Writes the inodes in the order of their places.
fn write_metadata(tree: &Tree, mut placed: Vec<Placed>, spool: &mut Spool<'_>) -> Result<()> {
    placed.sort_unstable_by_key(|inode| tree.node(inode.id).slot);
    let mut at = 0;
    let mut bytes = Vec::new();
    for (index, inode) in placed.iter().enumerate() {
        let node = tree.node(inode.id);
        let start = node.slot * SLOT_BYTES;
        bytes.clear();
        bytes.resize((start - at) as usize, 0);
        write_inode(tree, inode, node, index as u32 + 1, spool, &mut bytes)?;
        spool.append(&bytes)?;
        at += bytes.len() as u64;
    }
    Ok(())
}

fn write_inode(
    tree: &Tree,
    inode: &Placed,
    node: &Node,
    number: u32,
    spool: &Spool<'_>,
    to: &mut Vec<u8>,
) -> Result<()> {
    let xattrs = node.xattrs.as_deref().unwrap_or_default();
    let is_opaque = is_opaque(&node.kind);
    let tail_bytes = inode.tail_bytes(node);
    let (file_type, block_or_device) = match &node.kind {
        Kind::Directory(_) => (libc::S_IFDIR, inode.block),
        Kind::File(_) => (libc::S_IFREG, inode.block),
        Kind::Symlink(_) => (libc::S_IFLNK, inode.block),
        Kind::Char(device) => (libc::S_IFCHR, *device),
        Kind::Block(device) => (libc::S_IFBLK, *device),
        Kind::Fifo => (libc::S_IFIFO, 0),
        Kind::Whiteout => (libc::S_IFCHR, 0),
        Kind::Gone => return Err(LayerError::invalid("a replaced file is still named")),
    };
    let links = if matches!(node.kind, Kind::Directory(_)) { 2 + inode.subdirectories } else { node.names };
    let header = Inode {
        is_inline: tail_bytes > 0,
        xattr_bytes: xattr_body_bytes(xattrs, is_opaque),
        mode: file_type as u16 | node.attributes.mode,
        size: inode.size,
        block_or_device,
        number,
        uid: node.attributes.uid,
        gid: node.attributes.gid,
        mtime: node.attributes.mtime,
        links,
    };
    to.extend_from_slice(&header.to_bytes());
    write_xattrs(xattrs, is_opaque, to);
    let tail_at = to.len();
    match &node.kind {
        Kind::File(content) => {
            to.resize(tail_at + tail_bytes as usize, 0);
            spool.read_tail(content, &mut to[tail_at..])
        }
        Kind::Directory(directory) if tail_bytes > 0 => write_tail(tree, directory, inode, tail_bytes, to),
        Kind::Symlink(target) if tail_bytes > 0 => {
            to.extend_from_slice(target);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn write_tail(tree: &Tree, directory: &Directory, inode: &Placed, tail_bytes: u64, to: &mut Vec<u8>) -> Result<()> {
    let mut left = inode.size - tail_bytes;
    write_directory(tree, directory, inode.id, inode.parent, |block| {
        let skipped = left.min(block.len() as u64);
        left -= skipped;
        to.extend_from_slice(&block[skipped as usize..]);
        Ok(())
    })
}
