//! One OCI layer blob (tar, plain or in gzip or zstd) becomes one EROFS image: uncompressed, page-aligned, and the
//! same bytes for the same tar, whoever builds it and however the blob was compressed.
//!
//! The blob is read once, from front to back. File contents go straight into the image; names, attributes and links
//! wait in memory until the tar has ended, because a later entry may replace an earlier one, a whiteout's marker may
//! come before or after its directory, and a hard link adds to the count of an inode already seen.
//!
//! Layout of an image, in blocks of 4096 bytes: superblock · file contents in the tar's order · blocks of large
//! directories · inodes with their attributes and the tails of files (format: the kernel's
//! Documentation/filesystems/erofs.rst).
//!
//! Where the OCI specification is silent, Go's archive/tar and dockerd's unpacking are the reference: an image that
//! dockerd accepts is accepted here and means the same.

mod apply;
pub mod confine;
mod erofs;
mod error;
mod input;
mod limits;
mod path;
mod spool;
mod tar;
mod tree;

pub use error::{Code, LayerError, Result};
pub use limits::Limits;

use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read;

/// What to build.
#[derive(Clone, Debug, Default)]
pub struct BuildSpec {
    /// `sha256:` and 64 hex digits that the blob must have.
    pub expect_digest: Option<String>,
    /// `sha256:` and 64 hex digits that the uncompressed tar must have.
    pub expect_diff_id: Option<String>,
    /// What it may cost.
    pub limits: Limits,
}

/// What was built: the command's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Built {
    /// Digest of the blob as it came.
    pub digest: String,
    /// Digest of the uncompressed tar.
    pub diff_id: String,
    /// Bytes of the blob.
    pub compressed_bytes: u64,
    /// Bytes of the tar.
    pub uncompressed_bytes: u64,
    /// Bytes of the image, a multiple of 4096.
    pub image_bytes: u64,
    /// Entries of the tar (extended headers are not counted).
    pub entries: u64,
    /// Extended attributes that were left out: the overlay's own, and name spaces that EROFS does not have.
    pub dropped_xattrs: u64,
    /// The root directory is marked opaque: nothing of the layers below is to be seen. An overlay does not look at this
    /// attribute on a layer's root, so whoever stacks layers starts with this one.
    pub root_opaque: bool,
}

/// Builds the image of the layer `blob` in `image`, an empty file open for reading and writing; `tails` is another one,
/// for scratch. `confine` is called once the reader thread exists and before the first byte of the blob is looked at.
///
/// On failure the content of both files is undefined.
pub fn build<R: Read + Send>(
    blob: R,
    image: &File,
    tails: &File,
    spec: &BuildSpec,
    confine: impl FnOnce() -> Result<()>,
) -> Result<Built> {
    input::with_tar(blob, &spec.limits, confine, |tar| {
        let mut spool = spool::Spool::new(image, tails);
        let (tree, counts) = apply::read_layer(tar, &mut spool, &spec.limits)?;
        let ends = tar.finish()?;
        expect("blob", "digest", spec.expect_digest.as_deref(), &ends.digest, Code::DigestMismatch)?;
        expect("tar", "diffID", spec.expect_diff_id.as_deref(), &ends.diff_id, Code::DiffIdMismatch)?;
        let root_opaque = tree.is_root_opaque();
        let image_bytes = erofs::write_image(tree, spool, &ends.diff_id)?;
        Ok(Built {
            digest: ends.digest,
            diff_id: ends.diff_id,
            compressed_bytes: ends.compressed_bytes,
            uncompressed_bytes: ends.tar_bytes,
            image_bytes,
            entries: counts.entries,
            dropped_xattrs: counts.dropped_xattrs,
            root_opaque,
        })
    })
}

fn expect(what: &str, kind: &str, wanted: Option<&str>, found: &str, code: Code) -> Result<()> {
    match wanted {
        Some(wanted) if wanted != found => {
            Err(LayerError::new(code, format!("the {what}'s {kind} is {found}, expected {wanted}; fetch it again")))
        }
        _ => Ok(()),
    }
}
