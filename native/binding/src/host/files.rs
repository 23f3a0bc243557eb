//! Sparse copies, free space, and the lock of a data root.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, copy_file_range, fcntl};
use nix::sys::statvfs::statvfs;
use nix::unistd::{Whence, ftruncate, lseek};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::fault::{Context, Fault, Outcome};

/// A file to copy.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopySpec {
    source: PathBuf,
    /// Must not exist.
    target: PathBuf,
    /// Permission bits, before the umask.
    mode: u32,
}

/// What was copied.
#[derive(Serialize)]
pub struct Copied {
    size_bytes: u64,
    /// Without the holes.
    data_bytes: u64,
}

/// A path of the file system in question.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathRequest {
    path: PathBuf,
}

impl PathRequest {
    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Room on a file system.
#[derive(Serialize)]
pub struct Space {
    /// For users without privilege.
    free_bytes: u64,
    total_bytes: u64,
    free_inodes: u64,
}

/// A file's content.
#[derive(Serialize)]
pub struct Content {
    sha256: String,
    size_bytes: u64,
    /// In pages that are not all zeroes.
    data_bytes: u64,
}

const PAGE_BYTES: usize = 4096;

/// Digest of the file's size and of every 4 KiB page that is not all zeroes, with its number: what a file system stores as a hole
/// makes no difference, and a gigabyte of holes takes no time.
pub fn hash_sparse(request: PathRequest) -> Outcome<Content> {
    let name = request.path.display().to_string();
    let hash = || -> std::io::Result<Content> {
        let mut file = File::open(&request.path)?;
        let size_bytes = file.metadata()?.len();
        let mut digest = Sha256::new();
        digest.update(size_bytes.to_le_bytes());
        let (mut position, mut data_bytes) = (0_u64, 0_u64);
        let mut buffer = vec![0; 1 << 20];
        while position < size_bytes {
            let start = match lseek(file.as_fd(), position as i64, Whence::SeekData) {
                Ok(start) => start as u64 - start as u64 % PAGE_BYTES as u64,
                Err(Errno::ENXIO) => break,
                Err(errno) => return Err(errno.into()),
            };
            file.seek(SeekFrom::Start(start))?;
            let wanted = (size_bytes - start).min(buffer.len() as u64) as usize;
            file.read_exact(&mut buffer[..wanted])?;
            for (index, page) in buffer[..wanted].chunks(PAGE_BYTES).enumerate() {
                if page.iter().any(|byte| *byte != 0) {
                    digest.update((start / PAGE_BYTES as u64 + index as u64).to_le_bytes());
                    digest.update(page);
                    data_bytes += page.len() as u64;
                }
            }
            position = start + wanted as u64;
        }
        let sha256 = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Content { sha256, size_bytes, data_bytes })
    };
    hash().context("hash", name)
}

fn copy_range(source: &mut File, target: &mut File, start: u64, end: u64) -> std::io::Result<()> {
    const CHUNK_LIMIT_BYTES: u64 = 1 << 30;
    let (mut from, mut to) = (start as i64, start as i64);
    while (from as u64) < end {
        let wanted = (end - from as u64).min(CHUNK_LIMIT_BYTES) as usize;
        match copy_file_range(source.as_fd(), Some(&mut from), target.as_fd(), Some(&mut to), wanted) {
            // The source shrank meanwhile; the rest stays a hole.
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::EINTR) => {}
            // Between file systems, or one that does not know the call.
            Err(Errno::EXDEV | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS) => {
                source.seek(SeekFrom::Start(from as u64))?;
                target.seek(SeekFrom::Start(from as u64))?;
                return copy_bytes(source, target, end - from as u64);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn copy_bytes(source: &mut File, target: &mut File, length: u64) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut rest = length;
    while rest > 0 {
        let wanted = rest.min(buffer.len() as u64) as usize;
        let count = source.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Ok(());
        }
        target.write_all(&buffer[..count])?;
        rest -= count as u64;
    }
    Ok(())
}

fn copy_data(source: &mut File, target: &mut File, size_bytes: u64) -> std::io::Result<u64> {
    let mut position = 0;
    let mut data_bytes = 0;
    while position < size_bytes {
        let start = match lseek(source.as_fd(), position as i64, Whence::SeekData) {
            Ok(start) => start as u64,
            // No data after this point.
            Err(Errno::ENXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        let end = (lseek(source.as_fd(), start as i64, Whence::SeekHole)? as u64).min(size_bytes);
        if end <= start {
            break;
        }
        copy_range(source, target, start, end)?;
        data_bytes += end - start;
        position = end;
    }
    Ok(data_bytes)
}

/// Copies a file and keeps its holes, so that a 1 TiB file with little in it costs little. A failure leaves no target.
pub fn copy_sparse(spec: CopySpec) -> Outcome<Copied> {
    let mut source = File::open(&spec.source).context("open", spec.source.to_string_lossy())?;
    let metadata = source.metadata().context("read", spec.source.to_string_lossy())?;
    if !metadata.is_file() {
        return Err(Fault::invalid(
            spec.source.to_string_lossy(),
            format!("{} is not a regular file", spec.source.display()),
        ));
    }
    let size_bytes = metadata.len();
    let mut target = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(spec.mode & 0o7777)
        .open(&spec.target)
        .context("create", spec.target.to_string_lossy())?;
    let copied = ftruncate(&target, size_bytes as i64)
        .map_err(std::io::Error::from)
        .and_then(|()| copy_data(&mut source, &mut target, size_bytes));
    match copied.context("copy to", spec.target.to_string_lossy()) {
        Ok(data_bytes) => Ok(Copied { size_bytes, data_bytes }),
        Err(fault) => {
            let _ = std::fs::remove_file(&spec.target);
            Err(fault)
        }
    }
}

/// Free space of the file system that holds `path`.
pub fn free_space(request: PathRequest) -> Outcome<Space> {
    let facts = statvfs(&request.path).context("read the free space of", request.path.to_string_lossy())?;
    let fragment_bytes = facts.fragment_size();
    Ok(Space {
        free_bytes: facts.blocks_available().saturating_mul(fragment_bytes),
        total_bytes: facts.blocks().saturating_mul(fragment_bytes),
        free_inodes: facts.files_available(),
    })
}

/// Locks a file for this process alone, as long as the descriptor is open: an open file description lock, so that it ends with the
/// process however it ends. Writes the holder's pid into the file, for the error of the one who comes second.
pub fn lock_file(path: &Path) -> Outcome<OwnedFd> {
    let name = path.to_string_lossy();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .context("open", name.clone())?;
    // SAFETY: all zero is a valid `flock`.
    let mut whole: libc::flock = unsafe { std::mem::zeroed() };
    whole.l_type = libc::F_WRLCK as i16;
    whole.l_whence = libc::SEEK_SET as i16;
    match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole)) {
        Err(errno @ (Errno::EAGAIN | Errno::EACCES)) => {
            let mut holder = String::new();
            let _ = Read::by_ref(&mut file).take(16).read_to_string(&mut holder);
            let holder = holder.trim().parse::<u32>().map_or(String::new(), |pid| format!(" (pid {pid})"));
            let message =
                format!("{name} is locked: another process{holder} uses this directory; stop it or choose another");
            return Err(Fault { message, ..Fault::system(errno, name, "lock") });
        }
        outcome => outcome.context("lock", name.clone())?,
    };
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).context("write", name)?;
    Ok(file.into())
}

/// The number of a held descriptor.
pub fn number(descriptor: &OwnedFd) -> i32 {
    descriptor.as_raw_fd()
}
