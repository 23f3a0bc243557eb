//! The sandbox's short-lived files.

use std::fs;
use std::io::Result;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Removes a directory and what is in it, but nothing of another file system: a mount that is left in it is not entered.
pub fn remove(directory: &Path) -> Result<()> {
    let device = fs::symlink_metadata(directory)?.dev();
    remove_on(directory, device)
}

fn remove_on(directory: &Path, device: u64) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let facts = fs::symlink_metadata(&path)?;
        if facts.is_dir() && facts.dev() == device {
            remove_on(&path, device)?;
        } else {
            fs::remove_file(&path)?;
        }
    }
    fs::remove_dir(directory)
}
