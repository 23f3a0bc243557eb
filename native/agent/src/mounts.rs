//! What a container finds mounted: the spec's mounts, device nodes, hidden and read-only paths. All of it happens in
//! the container's own mount namespace.

use crate::failure::{Doing, Result, invalid};
use crate::in_root::{ensure_directory, ensure_file, handle_path, open_path};
use crate::mount_options::parse_mount_options;
use crate::spec::{DeviceSpec, MountSpec, Spec};
use bulkhead_protocol::Failure;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknodat};
use nix::unistd::{Gid, Uid};
use std::os::fd::BorrowedFd;
use std::path::Path;

/// File systems that can be mounted for a container, each made of nothing but the kernel.
const FILE_SYSTEMS: [&str; 8] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "devtmpfs"];

/// Mounts the spec's list in its order.
pub(crate) fn mount_all(root: BorrowedFd<'_>, spec: &Spec) -> Result<()> {
    for entry in &spec.mounts {
        mount_one(root, entry)?;
    }
    Ok(())
}

fn mount_one(root: BorrowedFd<'_>, entry: &MountSpec) -> Result<()> {
    if entry.is_own_init() {
        cover_file(root, &entry.source, &entry.destination)?;
        let mounted = open_path(root, Path::new(&entry.destination)).doing(|| &entry.destination)?;
        return remount_read_only(&handle_path(&mounted));
    }
    if !FILE_SYSTEMS.contains(&entry.kind.as_str()) {
        return Err(invalid(format!(
            "{}: a machine's container cannot mount type {:?}",
            entry.destination, entry.kind
        )));
    }
    // Only cgroup2 exists in a guest, and it takes none of the old hierarchy's options.
    let is_cgroup = entry.kind.starts_with("cgroup");
    let kind = if is_cgroup { "cgroup2" } else { entry.kind.as_str() };
    let mut options = parse_mount_options(&entry.options);
    if is_cgroup {
        options.data.clear();
    }
    let target = ensure_directory(root, Path::new(&entry.destination))?;
    let source = if entry.source.is_empty() { kind } else { entry.source.as_str() };
    mount(Some(source), handle_path(&target).as_str(), Some(kind), options.flags, Some(options.data.as_str()))
        .map_err(|errno| mount_failure(entry, errno))?;
    if !options.propagation.is_empty() {
        let mounted = open_path(root, Path::new(&entry.destination)).doing(|| &entry.destination)?;
        mount(None::<&str>, handle_path(&mounted).as_str(), None::<&str>, options.propagation, None::<&str>)
            .map_err(|errno| mount_failure(entry, errno))?;
    }
    Ok(())
}

fn mount_failure(entry: &MountSpec, errno: Errno) -> Failure {
    let what = format!("mounting {} at {} ({})", entry.kind, entry.destination, entry.options.join(","));
    if errno == Errno::EINVAL {
        invalid(format!("{what}: invalid option"))
    } else {
        crate::failure::internal(what, errno)
    }
}

/// Makes the device nodes and links that every container has, and the spec's further ones.
pub(crate) fn make_devices(root: BorrowedFd<'_>, devices: &[DeviceSpec]) -> Result<()> {
    let dev = ensure_directory(root, Path::new("/dev"))?;
    let standard = [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
    for (name, major, minor) in standard {
        match mknodat(&dev, name, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(major, minor)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno).doing(|| format!("/dev/{name}")),
        }
    }
    let links = [
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
        ("/proc/kcore", "core"),
        ("pts/ptmx", "ptmx"),
    ];
    for (target, name) in links {
        match nix::unistd::symlinkat(target, &dev, name) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno).doing(|| format!("/dev/{name}")),
        }
    }
    devices.iter().try_for_each(|device| make_device(root, device))
}

fn make_device(root: BorrowedFd<'_>, device: &DeviceSpec) -> Result<()> {
    let path = Path::new(&device.path);
    let kind = match device.kind.as_str() {
        "c" | "u" => SFlag::S_IFCHR,
        "b" => SFlag::S_IFBLK,
        "p" => SFlag::S_IFIFO,
        other => return Err(invalid(format!("{}: {other:?} is not a kind of device", device.path))),
    };
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(invalid(format!("{:?} is not a path for a device", device.path)));
    };
    let parent = ensure_directory(root, parent)?;
    let mode = Mode::from_bits_truncate(device.file_mode.unwrap_or(0o666) & 0o7777);
    match mknodat(&parent, name, kind, mode, makedev(device.major, device.minor)) {
        Err(Errno::EEXIST) => return Ok(()),
        made => made.doing(|| &device.path)?,
    }
    if (device.uid, device.gid) != (0, 0) {
        let owner = (Some(Uid::from_raw(device.uid)), Some(Gid::from_raw(device.gid)));
        nix::unistd::fchownat(&parent, name, owner.0, owner.1, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)
            .doing(|| &device.path)?;
    }
    Ok(())
}

/// Puts a file of the guest over a file of the root.
pub(crate) fn cover_file(root: BorrowedFd<'_>, source: &str, path: &str) -> Result<()> {
    let target = ensure_file(root, Path::new(path))?;
    mount(Some(source), handle_path(&target).as_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>).doing(|| path)
}

/// Hides paths (a file by /dev/null, a directory by an empty one); called inside the new root.
pub(crate) fn mask_paths(paths: &[String]) -> Result<()> {
    for path in paths {
        let path = path.as_str();
        match mount(Some("/dev/null"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(Errno::ENOTDIR) => {
                mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::MS_RDONLY, None::<&str>)
                    .doing(|| format!("hiding {path}"))?;
            }
            Err(errno) => return Err(errno).doing(|| format!("hiding {path}")),
        }
    }
    Ok(())
}

/// Makes paths read-only; called inside the new root.
pub(crate) fn protect_paths(paths: &[String]) -> Result<()> {
    for path in paths {
        match mount(Some(path.as_str()), path.as_str(), None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        {
            Ok(()) => remount_read_only(path)?,
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno).doing(|| path.clone()),
        }
    }
    Ok(())
}

/// Makes one mount read-only, keeping its other flags.
pub(crate) fn remount_read_only(path: &str) -> Result<()> {
    let kept = nix::sys::statvfs::statvfs(path).doing(|| path)?.flags();
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    for (fs, ms) in [
        (nix::sys::statvfs::FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (nix::sys::statvfs::FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (nix::sys::statvfs::FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
    ] {
        flags.set(ms, kept.contains(fs));
    }
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>).doing(|| format!("{path}: making it read-only"))
}
