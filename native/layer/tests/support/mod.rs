//! Tars made byte by byte (so that they can be wrong on purpose), the real command, and the real kernel's view of what
//! it built.

#![allow(dead_code)] // Each test file uses its part.

use bulkhead_layer::{Built, LayerError};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// One header to be.
#[derive(Clone)]
pub struct Entry {
    pub flag: u8,
    pub name: Vec<u8>,
    pub link: Vec<u8>,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: u64,
    pub device: (u32, u32),
    pub content: Vec<u8>,
    pub pax: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    pub fn new(flag: u8, name: &str) -> Self {
        Self {
            flag,
            name: name.into(),
            link: Vec::new(),
            mode: if flag == b'5' { 0o755 } else { 0o644 },
            uid: 0,
            gid: 0,
            mtime: 1_600_000_000,
            device: (0, 0),
            content: Vec::new(),
            pax: Vec::new(),
        }
    }

    pub fn link(mut self, target: &str) -> Self {
        self.link = target.into();
        self
    }

    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    pub fn owner(mut self, uid: u64, gid: u64) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    pub fn mtime(mut self, mtime: u64) -> Self {
        self.mtime = mtime;
        self
    }

    pub fn device(mut self, major: u32, minor: u32) -> Self {
        self.device = (major, minor);
        self
    }

    pub fn content(mut self, content: &[u8]) -> Self {
        self.content = content.into();
        self
    }

    pub fn pax(mut self, key: &str, value: &[u8]) -> Self {
        self.pax.push((key.into(), value.into()));
        self
    }
}

pub fn file(name: &str, content: &[u8]) -> Entry {
    Entry::new(b'0', name).content(content)
}

pub fn directory(name: &str) -> Entry {
    Entry::new(b'5', name)
}

pub fn symlink(name: &str, target: &str) -> Entry {
    Entry::new(b'2', name).link(target)
}

pub fn hard_link(name: &str, target: &str) -> Entry {
    Entry::new(b'1', name).link(target)
}

/// The tar of these entries, with its end.
pub fn tar_of(entries: &[Entry]) -> Vec<u8> {
    let mut tar: Vec<u8> = entries.iter().flat_map(entry_blocks).collect();
    tar.extend_from_slice(&[0; 1024]);
    tar
}

/// The blocks of one entry: its extended headers, its header, its content.
pub fn entry_blocks(entry: &Entry) -> Vec<u8> {
    let mut blocks = Vec::new();
    if !entry.pax.is_empty() {
        let records: Vec<u8> = entry.pax.iter().flat_map(|(key, value)| pax_record(key, value)).collect();
        blocks.extend(raw_blocks(b'x', b"PaxHeaders/x", &records));
    }
    if entry.name.len() > 100 {
        blocks.extend(raw_blocks(b'L', b"././@LongLink", &[&entry.name[..], b"\0"].concat()));
    }
    if entry.link.len() > 100 {
        blocks.extend(raw_blocks(b'K', b"././@LongLink", &[&entry.link[..], b"\0"].concat()));
    }
    blocks.extend(header(entry, entry.content.len() as u64));
    blocks.extend(padded(&entry.content));
    blocks
}

pub fn pax_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = 3 + key.len() + value.len();
    let length = (1..9).map(|digits| rest + digits).find(|length| rest + length.to_string().len() == *length);
    [length.expect("a length").to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

pub fn raw_blocks(flag: u8, name: &[u8], content: &[u8]) -> Vec<u8> {
    let mut entry = Entry::new(flag, "");
    entry.name = name.into();
    [header(&entry, content.len() as u64).to_vec(), padded(content)].concat()
}

/// A GNU header, with the checksum right.
pub fn header(entry: &Entry, size: u64) -> [u8; 512] {
    let mut block = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &entry.name[..entry.name.len().min(100)]);
    put(100, format!("{:07o}", entry.mode).as_bytes());
    put(108, &number(entry.uid, 8));
    put(116, &number(entry.gid, 8));
    put(124, &number(size, 12));
    put(136, &number(entry.mtime, 12));
    put(156, &[entry.flag]);
    put(157, &entry.link[..entry.link.len().min(100)]);
    put(257, b"ustar  \0");
    put(329, &number(entry.device.0.into(), 8));
    put(337, &number(entry.device.1.into(), 8));
    with_checksum(block)
}

pub fn with_checksum(mut block: [u8; 512]) -> [u8; 512] {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn number(value: u64, width: usize) -> Vec<u8> {
    let octal = format!("{value:0>width$o}", width = width - 1);
    if octal.len() < width {
        return octal.into_bytes();
    }
    let mut bytes = vec![0; width];
    bytes[0] = 0x80;
    bytes[width - 8 + usize::from(width == 8)..].copy_from_slice(&value.to_be_bytes()[usize::from(width == 8)..]);
    bytes
}

fn padded(content: &[u8]) -> Vec<u8> {
    let mut bytes = content.to_vec();
    bytes.resize(content.len().next_multiple_of(512), 0);
    bytes
}

/// A directory for one test's files.
pub struct Workshop {
    pub dir: TempDir,
}

impl Workshop {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs the command on a blob.
    pub fn build(&self, name: &str, blob: &[u8], options: &[&str]) -> Result<Built, LayerError> {
        let mut input = tempfile::tempfile().expect("a temporary file");
        input.write_all(blob).expect("write the blob");
        input.rewind().expect("rewind");
        self.build_from(name, Stdio::from(input), options)
    }

    pub fn build_from(&self, name: &str, blob: Stdio, options: &[&str]) -> Result<Built, LayerError> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead-layer"));
        let output = command.arg("build").arg("--output").arg(self.path(name)).args(options).stdin(blob).output();
        let output = output.expect("run the command");
        if output.status.success() {
            return Ok(serde_json::from_slice(&output.stdout).expect("one JSON line"));
        }
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        Err(serde_json::from_slice(&output.stderr).expect("one JSON line"))
    }

    /// Builds and mounts.
    pub fn mounted(&self, name: &str, entries: &[Entry]) -> Mounted {
        let image = self.path(name);
        self.build(name, &tar_of(entries), &[]).expect("a valid layer");
        Mounted::erofs(&image)
    }

    /// Names in the directory, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).expect("read the directory");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// A mount that ends with the value.
pub struct Mounted {
    pub dir: TempDir,
    _below: Vec<Mounted>,
    _empty: Option<TempDir>,
}

impl Mounted {
    /// The image as the kernel sees it, checked by fsck.erofs first.
    pub fn erofs(image: &Path) -> Self {
        let check = Command::new("fsck.erofs").arg(image).output().expect("fsck.erofs (package erofs-utils)");
        assert!(check.status.success(), "{}{}", text(&check.stdout), text(&check.stderr));
        Self::unchecked(image)
    }

    /// The image as the kernel sees it.
    pub fn unchecked(image: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let flags = nix::mount::MsFlags::MS_RDONLY;
        // From a file directly (Linux 6.12), else through a loop device.
        if nix::mount::mount(Some(image), dir.path(), Some("erofs"), flags, None::<&str>).is_err() {
            let mounted =
                Command::new("mount").args(["-t", "erofs", "-o", "loop,ro"]).arg(image).arg(dir.path()).output();
            let mounted = mounted.expect("run mount");
            assert!(mounted.status.success(), "{}", text(&mounted.stderr));
        }
        Self { dir, _below: Vec::new(), _empty: None }
    }

    /// An overlay of layers, the uppermost last, as a container sees them.
    pub fn overlay(layers: Vec<Mounted>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let below: Vec<_> = layers.iter().rev().map(|layer| layer.dir.path().display().to_string()).collect();
        // An overlay without upper directory wants two lower ones at least.
        let empty = tempfile::tempdir().expect("a temporary directory");
        let options = format!("lowerdir={}:{}", below.join(":"), empty.path().display());
        let flags = nix::mount::MsFlags::MS_RDONLY;
        nix::mount::mount(Some("overlay"), dir.path(), Some("overlay"), flags, Some(options.as_str()))
            .expect("mount an overlay");
        Self { dir, _below: layers, _empty: Some(empty) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("read a file")
    }

    pub fn metadata(&self, name: &str) -> std::fs::Metadata {
        self.path(name).symlink_metadata().expect("metadata")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let result = nix::mount::umount2(self.dir.path(), nix::mount::MntFlags::MNT_DETACH);
        assert!(result.is_ok() || std::thread::panicking(), "umount: {result:?}");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Everything there is to know about one file.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    pub content: Vec<u8>,
    pub device: u64,
    pub links: u64,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A whole tree, by path. Names that share an inode share a link count; `same_inode` checks the rest.
pub fn seen(root: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let mut all = BTreeMap::new();
    let mut ahead = vec![root.to_path_buf()];
    while let Some(path) = ahead.pop() {
        // An overlay lists a whiteout of nothing, in a directory that only one layer has; it cannot be looked up.
        let metadata = match path.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            metadata => metadata.expect("metadata"),
        };
        let kind = metadata.file_type();
        let content = if kind.is_file() {
            std::fs::read(&path).expect("read a file")
        } else if kind.is_symlink() {
            std::fs::read_link(&path).expect("read a link").as_os_str().as_bytes().to_vec()
        } else {
            Vec::new()
        };
        if kind.is_dir() {
            ahead.extend(std::fs::read_dir(&path).expect("list").map(|entry| entry.expect("an entry").path()));
        }
        let is_device = kind.is_char_device() || kind.is_block_device();
        let names = xattr::list(&path).map(Iterator::collect::<Vec<_>>).unwrap_or_default();
        let xattrs = names
            .into_iter()
            .map(|name| (name.as_bytes().to_vec(), xattr::get(&path, &name).expect("an attribute").unwrap_or_default()))
            .collect();
        let file = Seen {
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            content,
            device: if is_device { metadata.rdev() } else { 0 },
            links: if kind.is_dir() { 0 } else { metadata.nlink() },
            xattrs,
        };
        let name = path.strip_prefix(root).expect("below the root").as_os_str().as_bytes().to_vec();
        all.insert(name, file);
    }
    all
}

/// Numbers that look random and are the same every time.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, below: u64) -> u64 {
        // Knuth's MMIX generator; the high bits are the good ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.roll(256) as u8).collect()
    }
}

/// An open file's content as a child's input.
pub fn input_of(path: &Path) -> Stdio {
    Stdio::from(File::open(path).expect("open"))
}
