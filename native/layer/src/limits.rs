//! What a layer may cost. Each limit is checked before anything is allocated for it.

/// Bytes of a path, and of a link's target, as the kernel's PATH_MAX (4096) less its NUL.
pub const PATH_BYTES: usize = 4095;
/// Bytes of one name, as in the kernel (NAME_MAX) and in EROFS.
pub const NAME_BYTES: usize = 255;
/// Bytes of one extended header (PAX record block, GNU long name); the same as Go's archive/tar, which dockerd and
/// containerd read with.
pub const EXTENDED_HEADER_BYTES: u64 = 1 << 20;
/// Bytes of one attribute's value: EROFS has 16 bits for it (the kernel's own limit is one more, 65536).
pub const XATTR_VALUE_BYTES: usize = 65_535;
/// Bytes of all attributes of one file as EROFS stores them: 16 bits count 4-byte units.
pub const XATTR_TOTAL_BYTES: usize = 4 * 65_534;
/// Symbolic links followed on the way to one entry's parent, as in the kernel (MAXSYMLINKS).
pub const SYMLINKS_FOLLOWED: u32 = 40;
/// Components walked on the way to one entry's parent, symbolic links included.
pub const COMPONENTS_WALKED: u32 = 16_384;
/// Pieces of one sparse file.
pub const SPARSE_PIECES: usize = 1 << 18;
/// Bytes counted for each file in [`Limits::metadata_bytes`], beside its name and attributes.
pub const NODE_BYTES: u64 = 256;

/// The limits that a caller can set.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of the uncompressed tar.
    pub tar_bytes: u64,
    /// Bytes of the blob as it comes.
    pub compressed_bytes: u64,
    /// Entries of the tar, and files made from it (parents it does not name count too).
    pub entries: u64,
    /// Bytes of memory for names, attributes and link targets (an estimate, see [`NODE_BYTES`]).
    pub metadata_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { tar_bytes: 64 << 30, compressed_bytes: 64 << 30, entries: 5_000_000, metadata_bytes: 2 << 30 }
    }
}
