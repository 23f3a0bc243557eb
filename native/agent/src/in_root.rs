//! Paths inside a container's root that cannot lead out of it: every lookup is openat2(2) with `RESOLVE_IN_ROOT`, so a
//! symbolic link of the image is read as it would be inside.

use crate::failure::{Result, internal, invalid};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::sys::stat::{Mode, mkdirat};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// How many symbolic links a path that is being made may lead through.
const MAX_LINKS: usize = 16;

/// Opens an existing path as a handle (`O_PATH`).
pub(crate) fn open_path(root: BorrowedFd<'_>, path: &Path) -> nix::Result<OwnedFd> {
    open(root, path, OFlag::O_PATH, Mode::empty())
}

fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .mode(mode)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, if path.as_os_str().is_empty() { Path::new(".") } else { path }, how)
}

/// Opens a directory, making what is missing of it (mode 0755, root's).
pub(crate) fn ensure_directory(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    match open(root, path, flags, Mode::empty()) {
        Ok(directory) => return Ok(directory),
        Err(Errno::ENOENT) => {}
        Err(errno) => return Err(internal(path.display(), errno)),
    }
    let path = &follow_last(root, path, MAX_LINKS)?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(invalid(format!("{} is not a path inside a container", path.display())));
    };
    let parent = ensure_directory(root, parent)?;
    match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(internal(path.display(), errno)),
    }
    open(root, path, flags, Mode::empty()).map_err(|errno| internal(path.display(), errno))
}

/// Opens a file as a handle, making it (empty, mode 0644) and its directories where they are missing.
pub(crate) fn ensure_file(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    match open_path(root, path) {
        Ok(file) => return Ok(file),
        Err(Errno::ENOENT) => {}
        Err(errno) => return Err(internal(path.display(), errno)),
    }
    let path = follow_last(root, path, MAX_LINKS)?;
    ensure_directory(root, path.parent().unwrap_or(Path::new("/")))?;
    let created = open(root, &path, OFlag::O_CREAT | OFlag::O_WRONLY, Mode::from_bits_truncate(0o644));
    drop(created.map_err(|errno| internal(path.display(), errno))?);
    open_path(root, &path).map_err(|errno| internal(path.display(), errno))
}

/// Replaces a path whose last component is a symbolic link (to nothing yet) by what it points to.
fn follow_last(root: BorrowedFd<'_>, path: &Path, links_left: usize) -> Result<PathBuf> {
    let Ok(link) = open(root, path, OFlag::O_PATH | OFlag::O_NOFOLLOW, Mode::empty()) else {
        return Ok(path.to_owned());
    };
    let Ok(target) = readlinkat(&link, "") else { return Ok(path.to_owned()) };
    if links_left == 0 {
        return Err(internal(path.display(), Errno::ELOOP));
    }
    let target = path.parent().unwrap_or(Path::new("/")).join(target);
    follow_last(root, &target, links_left - 1)
}

/// A path by which mount(2) and friends reach an open handle.
pub(crate) fn handle_path(handle: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", handle.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("bulkhead-in-root-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_link_out_of_the_root_stays_inside() {
        let base = directory("links");
        std::os::unix::fs::symlink("/run/systemd/resolve/stub.conf", base.join("resolv.conf")).unwrap();
        std::os::unix::fs::symlink("../../../../outside", base.join("dir")).unwrap();
        let root = std::fs::File::open(&base).unwrap();

        ensure_file(root.as_fd(), Path::new("/resolv.conf")).unwrap();
        ensure_directory(root.as_fd(), Path::new("/dir/below")).unwrap();

        assert!(base.join("run/systemd/resolve/stub.conf").is_file());
        assert!(base.join("outside/below").is_dir());
        std::fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn a_loop_of_links_ends_in_an_error() {
        let base = directory("loop");
        std::os::unix::fs::symlink("b", base.join("a")).unwrap();
        std::os::unix::fs::symlink("a", base.join("b")).unwrap();
        let root = std::fs::File::open(&base).unwrap();

        assert!(ensure_directory(root.as_fd(), Path::new("/a")).is_err());
        assert!(ensure_file(root.as_fd(), Path::new("/a")).is_err());
        std::fs::remove_dir_all(base).unwrap();
    }
}
