//! The EROFS image: places every inode, then writes directories, inodes and superblock behind the file contents that
//! the spool has written already.

mod directory;
mod format;
mod image;
mod place;
mod xattr;

pub use image::write_image;
pub use xattr::{XattrName, xattr_body_bytes};
