//! The layer's files while its tar is read: an arena of nodes, directories by name. Paths are followed inside the
//! layer only; a symbolic link never leads out of it.

use crate::error::{LayerError, Result, shown};
use crate::limits::{COMPONENTS_WALKED, Limits, NODE_BYTES, SYMLINKS_FOLLOWED};
use crate::path::components;
use crate::spool::Content;
use std::collections::BTreeMap;

/// Index of a node.
pub type NodeId = u32;
/// The root directory.
pub const ROOT: NodeId = 0;

/// Owner, permissions and time of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
}

/// An attribute as EROFS stores it: index of the name's prefix, the rest of the name, the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xattr {
    pub prefix: u8,
    pub name: Box<[u8]>,
    pub value: Box<[u8]>,
}

/// Children of a directory, and what the layer says about the directory of that name below.
#[derive(Debug, Default)]
pub struct Directory {
    pub children: BTreeMap<Box<[u8]>, NodeId>,
    /// The layers below are not to be seen here.
    pub is_opaque: bool,
}

/// What a node is.
#[derive(Debug)]
pub enum Kind {
    Directory(Box<Directory>),
    File(Content),
    Symlink(Box<[u8]>),
    /// The device's number as the kernel's `new_encode_dev` packs it.
    Char(u32),
    Block(u32),
    Fifo,
    /// The name does not exist, whatever the layers below have.
    Whiteout,
    /// Was replaced.
    Gone,
}

/// A file of the layer, with all its names.
#[derive(Debug)]
pub struct Node {
    pub kind: Kind,
    pub attributes: Attributes,
    /// Sorted by prefix and name.
    pub xattrs: Option<Box<[Xattr]>>,
    /// Names that lead here (directories: always 1).
    pub names: u32,
    /// Place in the image, in 32-byte slots from the metadata's beginning; set when the image is written.
    pub slot: u64,
}

/// The layer's files.
#[derive(Debug)]
pub struct Tree {
    pub nodes: Vec<Node>,
    limit: Limits,
    metadata_bytes: u64,
    /// Contents of replaced files, to be given back.
    pub discarded: Vec<Content>,
}

const IMPLICIT: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: (0, 0) };

impl Tree {
    /// A tree with an empty root.
    pub fn new(limits: &Limits) -> Self {
        let root =
            Node { kind: Kind::Directory(Box::default()), attributes: IMPLICIT, xattrs: None, names: 1, slot: 0 };
        Self { nodes: vec![root], limit: limits.clone(), metadata_bytes: 0, discarded: Vec::new() }
    }

    /// The node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    /// The root hides all layers below.
    pub fn is_root_opaque(&self) -> bool {
        matches!(&self.node(ROOT).kind, Kind::Directory(root) if root.is_opaque)
    }

    /// The child of a directory; none if `parent` is none.
    pub fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        match &self.node(parent).kind {
            Kind::Directory(directory) => directory.children.get(name).copied(),
            _ => None,
        }
    }

    /// The directory at `path`, made with all its parents as far as it does not exist. `entry` is for messages.
    pub fn make_directories(&mut self, path: &[&[u8]], entry: &[u8]) -> Result<NodeId> {
        let mut walk = Walk::new(path, entry);
        while let Some(part) = walk.next()? {
            let parent = walk.directory();
            let Some(child) = self.child(parent, &part) else {
                let made = self.insert(parent, &part, Kind::Directory(Box::default()), IMPLICIT, None)?;
                walk.enter(made);
                continue;
            };
            let node = self.node_mut(child);
            match &node.kind {
                Kind::Directory(_) => walk.enter(child),
                Kind::Symlink(target) => walk.follow(target)?,
                // The name was removed and is a new directory now.
                Kind::Whiteout => {
                    node.kind = Kind::Directory(Box::new(Directory { is_opaque: true, ..Directory::default() }));
                    node.attributes = IMPLICIT;
                    walk.enter(child);
                }
                _ => return Err(not_a_directory(&part, entry)),
            }
        }
        Ok(walk.directory())
    }

    /// The node at `path`, if there is one. A symbolic link is followed on the way, not at the end.
    pub fn find(&self, path: &[&[u8]], entry: &[u8]) -> Result<Option<NodeId>> {
        let Some((name, parents)) = path.split_last() else { return Ok(Some(ROOT)) };
        let mut walk = Walk::new(parents, entry);
        while let Some(part) = walk.next()? {
            let Some(child) = self.child(walk.directory(), &part) else { return Ok(None) };
            match &self.node(child).kind {
                Kind::Directory(_) => walk.enter(child),
                Kind::Symlink(target) => walk.follow(target)?,
                _ => return Ok(None),
            }
        }
        Ok(self.child(walk.directory(), name))
    }

    /// Makes `name` in `parent` a new node, in place of what was there.
    ///
    /// A directory that takes the place of something else, a whiteout above all, is a new one: opaque.
    pub fn insert(
        &mut self,
        parent: NodeId,
        name: &[u8],
        mut kind: Kind,
        attributes: Attributes,
        xattrs: Option<Box<[Xattr]>>,
    ) -> Result<NodeId> {
        if self.nodes.len() as u64 > self.limit.entries {
            return Err(LayerError::limit(format!("the layer has more than {} files", self.limit.entries)));
        }
        let link_bytes = if let Kind::Symlink(target) = &kind { target.len() } else { 0 };
        self.charge(NODE_BYTES + (name.len() + link_bytes) as u64 + xattr_memory(xattrs.as_deref()))?;
        let old = self.child(parent, name);
        if let (Kind::Directory(directory), Some(_)) = (&mut kind, old) {
            directory.is_opaque = true;
        }
        let id = NodeId::try_from(self.nodes.len()).map_err(|_| LayerError::limit("the layer has too many files"))?;
        self.nodes.push(Node { kind, attributes, xattrs, names: 1, slot: 0 });
        self.set_child(parent, name, id);
        if let Some(old) = old {
            self.release(old);
        }
        Ok(id)
    }

    /// Gives a file one more name, in place of what was there.
    pub fn link(&mut self, parent: NodeId, name: &[u8], target: NodeId) -> Result<()> {
        let old = self.child(parent, name);
        if old == Some(target) {
            return Ok(());
        }
        self.charge(NODE_BYTES / 2 + name.len() as u64)?;
        let names = &mut self.node_mut(target).names;
        *names = names.checked_add(1).ok_or_else(|| LayerError::limit("a file has too many names"))?;
        self.set_child(parent, name, target);
        if let Some(old) = old {
            self.release(old);
        }
        Ok(())
    }

    /// Changes a directory's attributes to those of its own entry.
    pub fn set_attributes(&mut self, id: NodeId, attributes: Attributes, xattrs: Option<Box<[Xattr]>>) -> Result<()> {
        self.charge(xattr_memory(xattrs.as_deref()))?;
        let node = self.node_mut(id);
        node.attributes = attributes;
        node.xattrs = xattrs;
        Ok(())
    }

    /// Marks a directory opaque.
    pub fn set_opaque(&mut self, id: NodeId) {
        if let Kind::Directory(directory) = &mut self.node_mut(id).kind {
            directory.is_opaque = true;
        }
    }

    /// Drops whiteouts in opaque directories. They have nothing to hide, and an overlay, which reads such a directory
    /// directly, would list their names.
    pub fn prune_whiteouts(&mut self) {
        let is_whiteout: Vec<bool> = self.nodes.iter().map(|node| matches!(node.kind, Kind::Whiteout)).collect();
        if !is_whiteout.contains(&true) {
            return;
        }
        for node in &mut self.nodes {
            if let Kind::Directory(directory) = &mut node.kind
                && directory.is_opaque
            {
                directory.children.retain(|_, child| !is_whiteout[*child as usize]);
            }
        }
    }

    fn set_child(&mut self, parent: NodeId, name: &[u8], id: NodeId) {
        if let Kind::Directory(directory) = &mut self.node_mut(parent).kind {
            directory.children.insert(name.into(), id);
        }
    }

    /// Takes one name from a node, and the node with its last name, and what is below it.
    fn release(&mut self, id: NodeId) {
        let mut released = vec![id];
        while let Some(id) = released.pop() {
            let node = self.node_mut(id);
            node.names -= 1;
            if node.names > 0 {
                continue;
            }
            node.xattrs = None;
            match std::mem::replace(&mut node.kind, Kind::Gone) {
                Kind::Directory(directory) => released.extend(directory.children.into_values()),
                Kind::File(content) => self.discarded.push(content),
                _ => {}
            }
        }
    }

    fn charge(&mut self, bytes: u64) -> Result<()> {
        self.metadata_bytes += bytes;
        if self.metadata_bytes > self.limit.metadata_bytes {
            let limit = self.limit.metadata_bytes;
            return Err(LayerError::limit(format!("names and attributes of the layer take more than {limit} bytes")));
        }
        Ok(())
    }
}

fn xattr_memory(xattrs: Option<&[Xattr]>) -> u64 {
    xattrs.unwrap_or_default().iter().map(|xattr| (80 + xattr.name.len() + xattr.value.len()) as u64).sum()
}

fn not_a_directory(part: &[u8], entry: &[u8]) -> LayerError {
    LayerError::invalid(format!("{} stands below {}, which is not a directory", shown(entry), shown(part)))
}

/// Steps along a path, through symbolic links.
struct Walk<'e> {
    entry: &'e [u8],
    /// From the root to where we are.
    trail: Vec<NodeId>,
    /// Still to go, the next one last.
    ahead: Vec<Box<[u8]>>,
    steps: u32,
    links: u32,
}

impl<'e> Walk<'e> {
    fn new(path: &[&[u8]], entry: &'e [u8]) -> Self {
        let ahead = path.iter().rev().map(|&part| part.into()).collect();
        Self { entry, trail: vec![ROOT], ahead, steps: 0, links: 0 }
    }

    fn directory(&self) -> NodeId {
        self.trail.last().copied().unwrap_or(ROOT)
    }

    fn enter(&mut self, directory: NodeId) {
        self.trail.push(directory);
    }

    /// The next name to look up.
    fn next(&mut self) -> Result<Option<Box<[u8]>>> {
        while let Some(part) = self.ahead.pop() {
            self.steps += 1;
            if self.steps > COMPONENTS_WALKED {
                let message = format!("the way to {} has more than {COMPONENTS_WALKED} steps", shown(self.entry));
                return Err(LayerError::limit(message));
            }
            if *part != *b".." {
                return Ok(Some(part));
            }
            self.trail.pop();
        }
        Ok(None)
    }

    fn follow(&mut self, target: &[u8]) -> Result<()> {
        self.links += 1;
        if self.links > SYMLINKS_FOLLOWED {
            return Err(LayerError::invalid(format!("too many symbolic links on the way to {}", shown(self.entry))));
        }
        if target.first() == Some(&b'/') {
            self.trail.truncate(1);
        }
        // Not cleaned: `a/..` through a symbolic link is not where it started. Names are checked all the same.
        components(&[b"/", target].concat())?;
        let parts = target.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
        self.ahead.extend(parts.rev().map(Box::from));
        Ok(())
    }
}
