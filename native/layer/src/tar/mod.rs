//! A tar as a stream of entries. The rules are those of Go's archive/tar, which dockerd and containerd read layers
//! with; everything stays bytes, because names and attributes need not be UTF-8.

mod header;
mod pax;
mod reader;
mod sparse;

pub use reader::{ContentSink, Entry, EntryKind, TarReader};
