//! The sandbox's short-lived files.

use std::fs;
use std::io::Result;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Which directory a path led to when the shim began.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

/// The directory that is at the path now.
pub fn identify(directory: &Path) -> Result<Identity> {
    let facts = fs::symlink_metadata(directory)?;
    Ok(Identity { device: facts.dev(), inode: facts.ino() })
}

/// Removes a directory and what is in it, but nothing of another file system: a mount that is left in it is not entered. A directory that has
/// taken its place meanwhile (the container runs again, with another shim) is left alone.
pub fn remove(directory: &Path, identity: Identity) -> Result<()> {
    if identify(directory)? != identity {
        return Ok(());
    }
    remove_on(directory, identity.device)
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
