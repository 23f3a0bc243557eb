//! A container's root: the layers of its layers device, each an EROFS image, under one overlay whose writable part is the
//! scratch disk (ext4).

use crate::failure::{Doing, Result, errno_of, internal, invalid};
use crate::partition::add_partition;
use bulkhead_protocol::{Failure, FailureCode, Layer, Rootfs};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// As many as overlayfs and the partition numbers are used for here.
const MAX_LAYERS: usize = 127;

/// How long a disk may take to appear.
const DEVICE_DEADLINE: Duration = Duration::from_secs(5);

/// The mounts of one container's root, in the guest's own mount namespace.
#[derive(Debug)]
pub(crate) struct MountedRoot {
    /// Where the overlay is.
    pub(crate) path: String,
    /// In the order in which they were mounted.
    mounts: Vec<String>,
}

/// Mounts the root of the container with this slot (0 for the first one of the sandbox).
pub(crate) async fn mount_root(slot: usize, rootfs: &Rootfs, ephemeral: bool) -> Result<MountedRoot> {
    let extents = plan_extents(&rootfs.layers)?;
    let path = format!("/c/{slot}");
    let mut root = MountedRoot { path: path.clone(), mounts: Vec::new() };
    match mount_parts(&mut root, slot, &extents, ephemeral).await {
        Ok(()) => Ok(root),
        Err(failure) => {
            root.unmount();
            Err(failure)
        }
    }
}

async fn mount_parts(root: &mut MountedRoot, slot: usize, extents: &[(u64, u64)], ephemeral: bool) -> Result<()> {
    let mut lower = String::new();
    if extents.is_empty() {
        // An image without layers: an empty directory below.
        make_directory("/l")?;
        make_directory(&format!("/l/{slot}"))?;
        lower = format!("/l/{slot}");
    } else {
        let device = find_disk("layers", slot).await?;
        let handle: OwnedFd = std::fs::File::open(&device).doing(|| device.clone())?.into();
        make_directory("/l")?;
        for (index, (start, size)) in extents.iter().enumerate().rev() {
            let number = index + 1;
            let source = if extents.len() == 1 {
                device.clone()
            } else {
                add_partition(&handle, number as i32, *start, *size)?;
                format!("{device}{number}")
            };
            let target = format!("/l/{slot}.{number}");
            make_directory(&target)?;
            mount(Some(source.as_str()), target.as_str(), Some("erofs"), MsFlags::MS_RDONLY, None::<&str>)
                .doing(|| format!("layer {number} of {}", extents.len()))?;
            if !lower.is_empty() {
                lower.push(':');
            }
            lower.push_str(&target);
            root.mounts.push(target);
        }
    }
    let scratch = find_disk("scratch", slot).await?;
    let writable = format!("/s/{slot}");
    make_directory("/s")?;
    make_directory(&writable)?;
    // The disk is made so that its inode tables need never be written. What is thrown away with the sandbox need not
    // reach the disk in any order, or at all.
    let data = if ephemeral { "noinit_itable,nobarrier" } else { "noinit_itable" };
    mount(Some(scratch.as_str()), writable.as_str(), Some("ext4"), MsFlags::empty(), Some(data))
        .doing(|| format!("the writable part ({scratch})"))?;
    root.mounts.push(writable.clone());
    let (upper, work) = (format!("{writable}/upper"), format!("{writable}/work"));
    make_directory(&upper)?;
    make_directory(&work)?;
    make_directory("/c")?;
    make_directory(&root.path)?;
    let volatile = if ephemeral { ",volatile" } else { "" };
    let data = format!("lowerdir={lower},upperdir={upper},workdir={work}{volatile}");
    mount(Some("overlay"), root.path.as_str(), Some("overlay"), MsFlags::empty(), Some(data.as_str()))
        .doing(|| "the root file system")?;
    root.mounts.push(root.path.clone());
    Ok(())
}

impl MountedRoot {
    /// Takes everything down, the last first.
    pub(crate) fn unmount(&mut self) {
        self.unmount_down_to(0);
    }

    /// Takes the overlay and the scratch disk down, which puts the disk's file system to rest. The layers may stay.
    pub(crate) fn unmount_writable(&mut self) {
        self.unmount_down_to(self.mounts.len().saturating_sub(2));
    }

    fn unmount_down_to(&mut self, remaining: usize) {
        while self.mounts.len() > remaining
            && let Some(path) = self.mounts.pop()
        {
            // One that is still in use is detached; the caller flushes it.
            if umount2(path.as_str(), MntFlags::empty()).is_err() {
                let _ = umount2(path.as_str(), MntFlags::MNT_DETACH);
            }
        }
    }
}

/// Where each layer is on the layers device: (start, size), lowest first.
fn plan_extents(layers: &[Layer]) -> Result<Vec<(u64, u64)>> {
    if layers.len() > MAX_LAYERS {
        return Err(invalid(format!("{} layers; {MAX_LAYERS} is the most", layers.len())));
    }
    let mut start = 0_u64;
    layers
        .iter()
        .map(|layer| {
            let extent = (start, layer.size_bytes);
            let end = start.checked_add(layer.size_bytes).filter(|&end| end <= i64::MAX as u64);
            if layer.size_bytes == 0 || !layer.size_bytes.is_multiple_of(4096) || end.is_none() {
                return Err(invalid(format!("a layer of {} bytes is not possible", layer.size_bytes)));
            }
            start = end.unwrap_or(start);
            Ok(extent)
        })
        .collect()
}

fn make_directory(path: &str) -> Result<()> {
    match std::fs::create_dir(path) {
        Ok(()) => Ok(()),
        Err(error) if errno_of(&error) == Errno::EEXIST => Ok(()),
        Err(error) => Err(internal(path, errno_of(&error))),
    }
}

/// The device of a role, by its serial number (`layers`, `scratch`; from the second container on `layers1`, `scratch1` …)
/// or, where disks have none, by its place (two disks for each slot, layers first). Waits for it.
async fn find_disk(role: &str, slot: usize) -> Result<String> {
    let serial = if slot == 0 { role.to_owned() } else { format!("{role}{slot}") };
    let place = slot * 2 + usize::from(role == "scratch");
    let deadline = Instant::now() + DEVICE_DEADLINE;
    loop {
        if let Some(device) = look_for_disk(&serial, place) {
            return Ok(device);
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(FailureCode::MachineFailed, format!("the machine has no disk {serial}")));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn look_for_disk(serial: &str, place: usize) -> Option<String> {
    let mut disks: Vec<String> = std::fs::read_dir("/sys/block")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("vd"))
        .collect();
    disks.sort_by_key(|name| (name.len(), name.clone()));
    let mut without_serial = true;
    for name in &disks {
        let text = std::fs::read_to_string(format!("/sys/block/{name}/serial")).unwrap_or_default();
        let text = text.trim_matches(['\0', '\n', ' ']);
        without_serial &= text.is_empty();
        if text == serial {
            return existing(name);
        }
    }
    disks.get(place).filter(|_| without_serial).and_then(|name| existing(name))
}

fn existing(name: &str) -> Option<String> {
    let path = format!("/dev/{name}");
    Path::new(&path).exists().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(size_bytes: u64) -> Layer {
        Layer { image_path: String::new(), size_bytes, mount_path: String::new() }
    }

    #[test]
    fn layers_follow_each_other_on_the_device() {
        assert_eq!(plan_extents(&[layer(8192), layer(4096)]).unwrap(), [(0, 8192), (8192, 4096)]);
    }

    #[test]
    fn impossible_layers_are_refused() {
        assert!(plan_extents(&[layer(0)]).is_err());
        assert!(plan_extents(&[layer(100)]).is_err());
        assert!(plan_extents(&[layer(1 << 62), layer(1 << 62)]).is_err());
        assert!(plan_extents(&vec![layer(4096); 128]).is_err());
    }
}
