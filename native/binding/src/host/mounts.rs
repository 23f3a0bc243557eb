//! EROFS images of layers, mounted for the os wall, and the mounts that exist.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde::{Deserialize, Serialize};

use crate::fault::{Context, Fault, Outcome};

/// How to mount an image.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErofsSpec {
    image: PathBuf,
    target: PathBuf,
    /// Through a loop device even where the kernel can mount the file itself.
    #[serde(default)]
    force_loop: bool,
}

/// How it was mounted.
#[derive(Serialize)]
pub struct ErofsMount {
    /// `file`: the kernel reads the image itself; `loop`: through a loop device.
    method: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    loop_device: Option<String>,
}

/// What to unmount.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnmountSpec {
    target: PathBuf,
    /// Takes it out of the tree at once, even if it is in use; it ends with its last user.
    #[serde(default)]
    detach: bool,
}

/// Whether there was a mount.
#[derive(Serialize)]
pub struct Unmounted {
    unmounted: bool,
}

/// Where to look for mounts.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountDirectory {
    directory: PathBuf,
}

/// A mount of this process's namespace.
#[derive(Serialize, Debug, PartialEq, Eq)]
pub struct MountPoint {
    id: u64,
    parent_id: u64,
    /// `major:minor`.
    device: String,
    target: String,
    file_system: String,
    source: String,
    /// Of the mount and of the file system, comma-separated.
    options: String,
}

// Setuid files and device nodes keep working in a container: for both the kernel asks the overlay's own mount, not its layers.
// Nobody should use them through the layer's own mount on the host.
fn layer_flags() -> MsFlags {
    MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOATIME
}

fn mount_source(source: &Path, target: &Path) -> nix::Result<()> {
    mount(Some(source), target, Some("erofs"), layer_flags(), None::<&str>)
}

// linux/loop.h
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

#[repr(C)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

/// A loop device on the image, that goes by itself when the last user (in the end the mount) lets go of it.
fn attach_loop(image: &Path) -> Outcome<(File, PathBuf)> {
    const CONTROL: &str = "/dev/loop-control";
    const ATTEMPTS: usize = 64;
    let file = File::open(image).context("open", image.to_string_lossy())?;
    let control = OpenOptions::new().read(true).write(true).open(CONTROL).context("open", CONTROL)?;
    // SAFETY: all zero is a valid value of this plain C structure.
    let mut config: LoopConfig = unsafe { std::mem::zeroed() };
    config.fd = file.as_raw_fd() as u32;
    config.info.flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR;
    let name = image.as_os_str().as_encoded_bytes();
    let kept = &name[name.len().saturating_sub(63)..];
    config.info.file_name[..kept.len()].copy_from_slice(kept);
    for _ in 0..ATTEMPTS {
        // SAFETY: this request takes no argument.
        let number = Errno::result(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) })
            .context("get a free loop device from", CONTROL)?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = File::open(&path).context("open", path.to_string_lossy())?;
        // SAFETY: `config` is the structure that this request reads, and lives during the call.
        match Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) }) {
            Ok(_) => return Ok((device, path)),
            // Another process took it between the two calls.
            Err(Errno::EBUSY) => {}
            Err(errno) => return Err(Fault::system(errno, path.to_string_lossy(), "set up loop device")),
        }
    }
    Err(Fault::system(Errno::EBUSY, CONTROL, "get a free loop device from"))
}

/// Mounts an EROFS image read-only, without device nodes and setuid of its own mount. Kernels before 6.12 cannot mount a file and say
/// ENOTBLK, then a loop device stands in between.
pub fn mount_erofs(spec: ErofsSpec) -> Outcome<ErofsMount> {
    if !spec.force_loop {
        match mount_source(&spec.image, &spec.target) {
            Ok(()) => return Ok(ErofsMount { method: "file", loop_device: None }),
            Err(Errno::ENOTBLK) => {}
            Err(errno) => return Err(mount_fault(errno, &spec)),
        }
    }
    let (device, path) = attach_loop(&spec.image)?;
    mount_source(&path, &spec.target).map_err(|errno| mount_fault(errno, &spec))?;
    drop(device);
    Ok(ErofsMount { method: "loop", loop_device: Some(path.to_string_lossy().into_owned()) })
}

fn mount_fault(errno: Errno, spec: &ErofsSpec) -> Fault {
    let object = format!("{} on {}", spec.image.display(), spec.target.display());
    let fault = Fault::system(errno, object, "mount");
    match errno {
        Errno::ENODEV => Fault {
            message: format!("{}: this kernel has no EROFS; load it with `modprobe erofs`", fault.message),
            ..fault
        },
        Errno::EINVAL => Fault { message: format!("{}: the file is not a whole EROFS image", fault.message), ..fault },
        _ => fault,
    }
}

/// Unmounts; there need not be a mount.
pub fn unmount(spec: UnmountSpec) -> Outcome<Unmounted> {
    let flags = if spec.detach { MntFlags::MNT_DETACH } else { MntFlags::empty() };
    match umount2(&spec.target, flags | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(Unmounted { unmounted: true }),
        Err(Errno::EINVAL | Errno::ENOENT) => Ok(Unmounted { unmounted: false }),
        Err(errno) => Err(Fault::system(errno, spec.target.to_string_lossy(), "unmount")),
    }
}

/// Undoes the kernel's \ooo for blanks and backslashes.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (byte, octal) {
            (b'\\', Some(value)) => {
                bytes.push(value);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// One line of mountinfo. Source: proc(5).
fn parse_line(line: &[u8]) -> Option<(PathBuf, MountPoint)> {
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let mut fields = line.split(|byte| *byte == b' ');
    let id = text(fields.next()?).parse().ok()?;
    let parent_id = text(fields.next()?).parse().ok()?;
    let device = text(fields.next()?);
    let _root = fields.next()?;
    let target = unescape(fields.next()?);
    let mount_options = text(fields.next()?);
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let file_system = text(rest.next()?);
    let source = unescape(rest.next()?).to_string_lossy().into_owned();
    let options = format!("{mount_options},{}", text(rest.next()?));
    let shown = target.to_string_lossy().into_owned();
    Some((target, MountPoint { id, parent_id, device, target: shown, file_system, source, options }))
}

/// The mounts at and below a directory, in the order they were made; unmount them in reverse.
pub fn list_mounts(wanted: MountDirectory) -> Outcome<Vec<MountPoint>> {
    const PATH: &str = "/proc/self/mountinfo";
    // The kernel's paths have no links.
    let directory = match wanted.directory.canonicalize() {
        Ok(directory) => directory,
        Err(error) if error.kind() == ErrorKind::NotFound => wanted.directory,
        Err(error) => return Err(error).context("resolve", wanted.directory.to_string_lossy()),
    };
    let content = std::fs::read(PATH).context("read", PATH)?;
    let lines = content.split(|byte| *byte == b'\n').filter_map(parse_line);
    Ok(lines.filter(|(target, _)| target.starts_with(&directory)).map(|(_, mount)| mount).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read_whatever_blanks_and_optional_fields_it_has() {
        let line =
            br"36 35 98:0 /mnt1 /mnt/a\040b\134c rw,noatime master:1 shared:7 - ext4 /dev/ro\040ot rw,errors=continue";
        let (target, mount) = parse_line(line).expect("a mount");
        assert_eq!(target, Path::new("/mnt/a b\\c"));
        assert_eq!((mount.id, mount.parent_id, mount.source.as_str()), (36, 35, "/dev/ro ot"));
        assert_eq!((mount.file_system.as_str(), mount.options.as_str()), ("ext4", "rw,noatime,rw,errors=continue"));
    }

    #[test]
    fn a_cut_line_is_no_mount() {
        assert!(parse_line(b"36 35 98:0 /mnt1 /mnt2 rw - ext4").is_none());
    }
}
