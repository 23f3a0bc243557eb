//! Entries of a tar, one at a time, with extended headers applied.

use super::header::{BLOCK_BYTES, Header, parse_header, text};
use super::pax::{Pax, parse_pax};
use super::sparse::{Extent, extents_of, read_data_map, read_gnu_map};
use crate::error::{Code, LayerError, Result, shown};
use crate::input::TarStream;
use crate::limits::EXTENDED_HEADER_BYTES;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// Another name for an earlier file.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// An entry; its content is read with [`TarReader::content`].
#[derive(Debug)]
pub struct Entry {
    pub kind: EntryKind,
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Bytes of the content; 0 for all but files.
    pub size: u64,
    pub major: u32,
    pub minor: u32,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Takes a file's content, in order.
pub trait ContentSink {
    /// The next bytes.
    fn data(&mut self, bytes: &[u8]) -> Result<()>;
    /// The next bytes are zeros, this many.
    fn zeros(&mut self, bytes: u64) -> Result<()>;
}

/// Reads entries.
pub struct TarReader<'a> {
    tar: &'a mut TarStream,
    /// Content of the current entry that the tar still holds, its padding not counted.
    left_bytes: u64,
    padding_bytes: u64,
    extents: Option<Vec<Extent>>,
    size: u64,
    /// Sizes of all files so far, holes included.
    sum_bytes: u64,
    name: Vec<u8>,
}

impl<'a> TarReader<'a> {
    /// A reader at the tar's beginning.
    pub fn new(tar: &'a mut TarStream) -> Self {
        Self { tar, left_bytes: 0, padding_bytes: 0, extents: None, size: 0, sum_bytes: 0, name: Vec::new() }
    }

    /// The next entry, or none at the archive's end. As in Go's reader a tar may end without its two blocks of zeros.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip(self.left_bytes + self.padding_bytes)?;
        let mut pax: Option<Pax> = None;
        let mut long_name: Option<Vec<u8>> = None;
        let mut long_link: Option<Vec<u8>> = None;
        loop {
            let Some(block) = self.block()? else {
                if pax.is_some() || long_name.is_some() || long_link.is_some() {
                    return Err(LayerError::new(Code::Truncated, "the tar ends after an extended header"));
                }
                return Ok(None);
            };
            let header = parse_header(&block)?;
            match header.flag {
                b'x' => pax = Some(parse_pax(&self.extended(&header)?)?),
                // dockerd and containerd ignore global headers (git archive writes one).
                b'g' => {
                    self.extended(&header)?;
                }
                b'L' => long_name = Some(text(&self.extended(&header)?).to_vec()),
                b'K' => long_link = Some(text(&self.extended(&header)?).to_vec()),
                _ => {
                    let pax = pax.unwrap_or_default();
                    let name = pax.path.clone().or(long_name).unwrap_or_else(|| header.name.clone());
                    let link = pax.link.clone().or(long_link).unwrap_or_else(|| header.link.clone());
                    return self.entry(&block, header, pax, name, link).map(Some);
                }
            }
        }
    }

    fn entry(
        &mut self,
        block: &[u8; BLOCK_BYTES],
        header: Header,
        pax: Pax,
        name: Vec<u8>,
        link: Vec<u8>,
    ) -> Result<Entry> {
        let path = pax.sparse.name.clone().unwrap_or(name);
        let bad = |field: &str| LayerError::invalid(format!("{} has an impossible {field}", shown(&path)));
        let kind = match header.flag {
            0 if path.last() == Some(&b'/') => EntryKind::Directory,
            0 | b'0' | b'7' | b'S' => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::Char,
            b'4' => EntryKind::Block,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            flag => {
                let message = format!("{} has the unknown entry type \"{}\"", shown(&path), flag.escape_ascii());
                return Err(LayerError::invalid(message));
            }
        };
        // The size of anything but a file is ignored, as by Go's reader: such entries have no content.
        let stored_bytes = match kind {
            EntryKind::File => u64::try_from(pax.size.unwrap_or(header.size)).map_err(|_| bad("size"))?,
            _ => 0,
        };
        self.size = stored_bytes;
        self.extents = None;
        self.left_bytes = stored_bytes;
        self.padding_bytes = stored_bytes.wrapping_neg() % BLOCK_BYTES as u64;
        self.check_size(&path, stored_bytes)?;
        if kind == EntryKind::File {
            self.read_sparse_map(block, header.flag, &pax, &path)?;
        }
        let entry = Entry {
            kind,
            link,
            mode: (header.mode & 0o7777) as u16,
            uid: id(pax.uid.unwrap_or(header.uid)).ok_or_else(|| bad("uid"))?,
            gid: id(pax.gid.unwrap_or(header.gid)).ok_or_else(|| bad("gid"))?,
            mtime: pax.mtime.unwrap_or((header.mtime, 0)),
            size: self.size,
            major: u32::try_from(header.major).map_err(|_| bad("device number"))?,
            minor: u32::try_from(header.minor).map_err(|_| bad("device number"))?,
            xattrs: pax.xattrs,
            path,
        };
        self.name.clone_from(&entry.path);
        self.sum_bytes += self.size;
        Ok(entry)
    }

    fn read_sparse_map(&mut self, block: &[u8; BLOCK_BYTES], flag: u8, pax: &Pax, path: &[u8]) -> Result<()> {
        let (parts, size) = if flag == b'S' {
            read_gnu_map(path, block, self.tar)?
        } else if pax.sparse.is_map_in_data || pax.sparse.map.is_some() {
            let no_size = || LayerError::invalid(format!("the sparse file {} has no size", shown(path)));
            let size = pax.sparse.real_size.and_then(|size| u64::try_from(size).ok()).ok_or_else(no_size)?;
            match &pax.sparse.map {
                Some(map) if !pax.sparse.is_map_in_data => (map.clone(), size),
                _ => {
                    let (parts, taken) = read_data_map(path, self.left_bytes, self.tar)?;
                    self.left_bytes -= taken;
                    (parts, size)
                }
            }
        } else {
            return Ok(());
        };
        self.check_size(path, size)?;
        self.extents = Some(extents_of(path, &parts, size, self.left_bytes)?);
        self.size = size;
        Ok(())
    }

    fn check_size(&self, path: &[u8], size: u64) -> Result<()> {
        let limit = self.tar.limit_bytes();
        // A sparse file's holes do not stand in the tar, but they take their part of the image's addresses.
        if size <= self.tar.left_bytes() && self.sum_bytes.saturating_add(size) <= limit {
            return Ok(());
        }
        Err(LayerError::limit(format!("{} has {size} bytes; a layer has at most {limit} uncompressed", shown(path))))
    }

    /// Passes the current entry's content on.
    pub fn content(&mut self, sink: &mut impl ContentSink) -> Result<()> {
        let mut at = 0;
        for extent in self.extents.take().unwrap_or_else(|| vec![Extent { offset: 0, bytes: self.size }]) {
            sink.zeros(extent.offset - at)?;
            let mut left = extent.bytes;
            while left > 0 {
                let bytes = self.tar.take(left)?;
                if bytes.is_empty() {
                    return Err(ends_in(&self.name));
                }
                left -= bytes.len() as u64;
                self.left_bytes -= bytes.len() as u64;
                sink.data(bytes)?;
            }
            at = extent.offset + extent.bytes;
        }
        sink.zeros(self.size - at)
    }

    /// The next block, or none at the end of the archive or of the tar.
    fn block(&mut self) -> Result<Option<[u8; BLOCK_BYTES]>> {
        let mut block = [0; BLOCK_BYTES];
        match self.tar.fill(&mut block)? {
            0 => return Ok(None),
            BLOCK_BYTES => {}
            _ => return Err(LayerError::new(Code::Truncated, "the tar ends in the middle of a header")),
        }
        if block.iter().any(|&byte| byte != 0) {
            return Ok(Some(block));
        }
        let filled = self.tar.fill(&mut block)?;
        if block[..filled].iter().any(|&byte| byte != 0) {
            return Err(LayerError::invalid("a block of zeros stands in the middle of the tar"));
        }
        Ok(None)
    }

    /// The content of an extended header.
    fn extended(&mut self, header: &Header) -> Result<Vec<u8>> {
        let bad = || LayerError::invalid("an extended header has an impossible size");
        let size = u64::try_from(header.size).map_err(|_| bad())?;
        if size > EXTENDED_HEADER_BYTES {
            let message = format!("an extended header has {size} bytes, more than {EXTENDED_HEADER_BYTES}");
            return Err(LayerError::limit(message));
        }
        let mut content = vec![0; size as usize];
        if self.tar.fill(&mut content)? < content.len() {
            return Err(LayerError::new(Code::Truncated, "the tar ends in an extended header"));
        }
        self.name.clone_from(&header.name);
        self.left_bytes = 0;
        self.padding_bytes = 0;
        self.skip(size.wrapping_neg() % BLOCK_BYTES as u64)?;
        Ok(content)
    }

    fn skip(&mut self, mut bytes: u64) -> Result<()> {
        while bytes > 0 {
            let skipped = self.tar.take(bytes)?.len() as u64;
            if skipped == 0 {
                return Err(ends_in(&self.name));
            }
            bytes -= skipped;
        }
        Ok(())
    }
}

fn ends_in(name: &[u8]) -> LayerError {
    LayerError::new(Code::Truncated, format!("the tar ends in the content of {}", shown(name)))
}

/// A user or group id; the largest 32-bit number means "none" to the kernel.
fn id(value: i64) -> Option<u32> {
    u32::try_from(value).ok().filter(|&id| id != u32::MAX)
}
