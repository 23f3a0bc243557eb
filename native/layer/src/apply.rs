//! What each entry of a layer's tar means: files, links, and the whiteouts of the OCI image specification, turned into
//! overlayfs's own (a character device 0:0, the attribute `trusted.overlay.opaque`).

use crate::erofs::{XattrName, xattr_body_bytes};
use crate::error::{LayerError, Result, shown};
use crate::input::TarStream;
use crate::limits::{Limits, PATH_BYTES, XATTR_TOTAL_BYTES};
use crate::path::components;
use crate::spool::Spool;
use crate::tar::{Entry, EntryKind, TarReader};
use crate::tree::{Attributes, Kind, ROOT, Tree, Xattr};
use std::collections::BTreeMap;

const WHITEOUT: &[u8] = b".wh.";
const AUFS: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Sums over the tar.
#[derive(Debug, Default)]
pub struct Counts {
    pub entries: u64,
    pub dropped_xattrs: u64,
}

/// Reads the whole tar.
pub fn read_layer(tar: &mut TarStream, spool: &mut Spool<'_>, limits: &Limits) -> Result<(Tree, Counts)> {
    let mut tree = Tree::new(limits);
    let mut counts = Counts::default();
    let mut reader = TarReader::new(tar);
    while let Some(entry) = reader.next_entry()? {
        counts.entries += 1;
        if counts.entries > limits.entries {
            return Err(LayerError::limit(format!("the layer has more than {} entries", limits.entries)));
        }
        apply(entry, &mut reader, &mut tree, spool, &mut counts)?;
        for content in tree.discarded.drain(..) {
            spool.discard(content)?;
        }
    }
    tree.prune_whiteouts();
    Ok((tree, counts))
}

fn apply(
    mut entry: Entry,
    reader: &mut TarReader<'_>,
    tree: &mut Tree,
    spool: &mut Spool<'_>,
    counts: &mut Counts,
) -> Result<()> {
    let given_xattrs = std::mem::take(&mut entry.xattrs);
    let path = components(&entry.path)?;
    let Some((&name, parents)) = path.split_last() else {
        if entry.kind != EntryKind::Directory {
            let message = format!("{} names the root, which must be a directory", shown(&entry.path));
            return Err(LayerError::invalid(message));
        }
        let xattrs = keep_xattrs(given_xattrs, &entry.path, counts)?;
        return tree.set_attributes(ROOT, attributes_of(&entry), xattrs);
    };
    if path.iter().any(|part| part.starts_with(AUFS)) {
        // aufs's own files mean nothing to anyone else.
        if name == OPAQUE && !parents.iter().any(|part| part.starts_with(AUFS)) {
            let directory = tree.make_directories(parents, &entry.path)?;
            tree.set_opaque(directory);
        }
        return Ok(());
    }
    if let Some(removed) = name.strip_prefix(WHITEOUT) {
        return apply_whiteout(removed, parents, &entry, tree);
    }
    if entry.kind == EntryKind::HardLink {
        return apply_hard_link(name, parents, &entry, tree);
    }
    let xattrs = keep_xattrs(given_xattrs, &entry.path, counts)?;
    let attributes = attributes_of(&entry);
    let parent = tree.make_directories(parents, &entry.path)?;
    let kind = match entry.kind {
        EntryKind::Directory => match tree.child(parent, name) {
            Some(existing) if matches!(tree.node(existing).kind, Kind::Directory(_)) => {
                return tree.set_attributes(existing, attributes, xattrs);
            }
            _ => Kind::Directory(Box::default()),
        },
        EntryKind::File => {
            let xattr_bytes = xattr_body_bytes(xattrs.as_deref().unwrap_or_default(), false);
            Kind::File(spool.store(entry.size, xattr_bytes, |sink| reader.content(sink))?)
        }
        EntryKind::Symlink => Kind::Symlink(symlink_target(&entry)?),
        EntryKind::Char => Kind::Char(device_of(&entry)?),
        EntryKind::Block => Kind::Block(device_of(&entry)?),
        EntryKind::Fifo | EntryKind::HardLink => Kind::Fifo,
    };
    tree.insert(parent, name, kind, attributes, xattrs)?;
    Ok(())
}

/// A whiteout speaks of the layers below only: what this layer has under the same name stays, wherever its entry
/// stands; a directory then shows nothing of the layers below.
fn apply_whiteout(removed: &[u8], parents: &[&[u8]], entry: &Entry, tree: &mut Tree) -> Result<()> {
    if matches!(removed, b"" | b"." | b"..") {
        return Err(LayerError::invalid(format!("{} is a whiteout of nothing", shown(&entry.path))));
    }
    let parent = tree.make_directories(parents, &entry.path)?;
    match tree.child(parent, removed) {
        Some(existing) => tree.set_opaque(existing),
        None => {
            tree.insert(parent, removed, Kind::Whiteout, Attributes::default(), None)?;
        }
    }
    Ok(())
}

fn apply_hard_link(name: &[u8], parents: &[&[u8]], entry: &Entry, tree: &mut Tree) -> Result<()> {
    let refuse = |why: &str| {
        let (path, link) = (shown(&entry.path), shown(&entry.link));
        Err(LayerError::invalid(format!("{path} is a hard link to {link}, {why}")))
    };
    let Some(target) = tree.find(&components(&entry.link)?, &entry.link)? else {
        return refuse("which is not in this layer before it");
    };
    match tree.node(target).kind {
        Kind::Directory(_) => refuse("which is a directory"),
        Kind::Whiteout | Kind::Gone => refuse("which is not in this layer before it"),
        _ => {
            let parent = tree.make_directories(parents, &entry.path)?;
            tree.link(parent, name, target)
        }
    }
}

fn attributes_of(entry: &Entry) -> Attributes {
    // Links have no permissions of their own.
    let mode = if entry.kind == EntryKind::Symlink { 0o777 } else { entry.mode };
    Attributes { mode, uid: entry.uid, gid: entry.gid, mtime: entry.mtime }
}

fn symlink_target(entry: &Entry) -> Result<Box<[u8]>> {
    let target = &entry.link;
    if target.is_empty() || target.contains(&0) {
        return Err(LayerError::invalid(format!("the symbolic link {} has no target", shown(&entry.path))));
    }
    if target.len() > PATH_BYTES {
        let message =
            format!("the target of the symbolic link {} is longer than {PATH_BYTES} bytes", shown(&entry.path));
        return Err(LayerError::limit(message));
    }
    Ok(target.as_slice().into())
}

/// 12 bits of major, 20 of minor number, packed as the kernel's `new_encode_dev` does.
fn device_of(entry: &Entry) -> Result<u32> {
    let (major, minor) = (entry.major, entry.minor);
    if major >= 1 << 12 || minor >= 1 << 20 {
        let message = format!("{} has the impossible device number {major}:{minor}", shown(&entry.path));
        return Err(LayerError::invalid(message));
    }
    Ok((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}

/// The entry's attributes that the image will have. The overlay's own are dropped: a layer must not speak to the
/// overlay behind our back; and those whose name space EROFS does not have.
fn keep_xattrs(given: Vec<(Vec<u8>, Vec<u8>)>, path: &[u8], counts: &mut Counts) -> Result<Option<Box<[Xattr]>>> {
    // A later one of the same name counts.
    let mut kept = BTreeMap::new();
    for (name, value) in given {
        let Some(XattrName { prefix, rest }) = XattrName::parse(&name) else {
            counts.dropped_xattrs += 1;
            continue;
        };
        if XattrName::is_acl(prefix) && !is_acl(&value) {
            let message = format!("the attribute {} of {} is no access list", shown(&name), shown(path));
            return Err(LayerError::invalid(message));
        }
        kept.insert((prefix, Box::from(rest)), value.into_boxed_slice());
    }
    if kept.is_empty() {
        return Ok(None);
    }
    let kept: Box<[Xattr]> = kept.into_iter().map(|((prefix, name), value)| Xattr { prefix, name, value }).collect();
    // With room for the opaque mark.
    if xattr_body_bytes(&kept, true) > XATTR_TOTAL_BYTES as u64 {
        let message = format!("the attributes of {} take more than {XATTR_TOTAL_BYTES} bytes", shown(path));
        return Err(LayerError::limit(message));
    }
    Ok(Some(kept))
}

/// Version 2 in little endian, then entries of 8 bytes: what the kernel checks first. A file with a damaged list could
/// not be opened.
fn is_acl(value: &[u8]) -> bool {
    value.len() % 8 == 4 && value.starts_with(&2_u32.to_le_bytes())
}
