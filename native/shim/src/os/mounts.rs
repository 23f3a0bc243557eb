//! The mount namespace of the shim, and a container's root in it. All of it vanishes with the shim.

use bulkhead_protocol::{Failure, FailureCode, Rootfs};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Layers of an overlay; the kernel takes 500, but the option string must fit into one page.
const LAYERS_MAX: usize = 127;

/// Moves the calling thread, which must be the only one, to a mount namespace of its own. What the host mounts later is
/// still seen, what is mounted here is not seen by the host.
pub fn enter_mount_namespace() -> Result<(), Failure> {
    let failed = |cause| Failure::new(FailureCode::Internal, format!("cannot make a mount namespace: {cause}"));
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>).map_err(failed)
}

/// Mounts a container's root: its layers, and its writable part above them. `empty` is an empty directory.
pub fn mount_root(rootfs: &Rootfs, ephemeral: bool, empty: &Path, target: &Path) -> Result<(), Failure> {
    if rootfs.layers.len() > LAYERS_MAX {
        let message = format!("the image has {} layers; {LAYERS_MAX} can be mounted", rootfs.layers.len());
        return Err(Failure::new(FailureCode::InvalidRequest, message));
    }
    let failed = |what: &str, cause: &dyn std::fmt::Display| {
        Failure::new(FailureCode::Internal, format!("root {}: cannot {what}: {cause}", target.display()))
    };
    let open = |path: &Path| {
        OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
            .open(path)
            .map_err(|cause| failed(&format!("open {}", path.display()), &cause))
    };
    // The uppermost comes first in the option.
    let mut lower = Vec::new();
    for layer in rootfs.layers.iter().rev() {
        lower.push(open(Path::new(&layer.mount_path))?);
    }
    if lower.is_empty() {
        lower.push(open(empty)?);
    }
    let writable = Path::new(&rootfs.writable_path);
    let (upper, work) = (writable.join("upper"), writable.join("work"));
    let prepare = || -> std::io::Result<()> {
        if !upper.exists() {
            fs::create_dir(&upper)?;
            let facts = lower[0].metadata()?;
            fs::set_permissions(&upper, fs::Permissions::from_mode(facts.mode() & 0o7777))?;
            std::os::unix::fs::chown(&upper, Some(facts.uid()), Some(facts.gid()))?;
        }
        // Overlay's own scratch; a `volatile` mount that was not unmounted in order leaves a mark that forbids the next.
        if work.exists() {
            fs::remove_dir_all(&work)?;
        }
        fs::create_dir(&work)
    };
    prepare().map_err(|cause| failed(&format!("prepare {}", writable.display()), &cause))?;
    let (upper, work) = (open(&upper)?, open(&work)?);
    // By descriptor: no length and no character of a path matters.
    let name = |file: &File| format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut options = format!("upperdir={},workdir={},index=off,lowerdir=", name(&upper), name(&work));
    options += &lower.iter().map(name).collect::<Vec<_>>().join(":");
    if ephemeral {
        options += ",volatile";
    }
    mount(Some("overlay"), target, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .map_err(|cause| failed(&format!("mount {} layers", rootfs.layers.len()), &cause))
}

/// Detaches every mount below a directory in this mount namespace.
pub fn unmount_below(directory: &Path) {
    let Ok(table) = fs::read_to_string("/proc/self/mountinfo") else { return };
    let mut targets: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|target| PathBuf::from(target.replace("\\040", " ")))
        .filter(|target| target.starts_with(directory) && target != directory)
        .collect();
    targets.reverse();
    for target in targets {
        if let Err(cause) = umount2(&target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            eprintln!("cannot unmount {}: {cause}", target.display());
        }
    }
}
