//! A container's root: an overlay over the image's layers whose writable part is the scratch disk (ext4).

use crate::disks::{find_disk, make_directory, unmount};
use crate::failure::{Doing, Result};
use crate::layers::LayerStack;
use nix::mount::{MsFlags, mount};
use std::path::Path;

/// The mounts of one container's root, in the guest's own mount namespace.
#[derive(Debug)]
pub(crate) struct MountedRoot {
    /// Where the overlay is.
    pub(crate) path: String,
    layers: LayerStack,
    /// Scratch disk and overlay, in the order in which they were mounted.
    mounts: Vec<String>,
}

impl MountedRoot {
    /// Mounts the root of the container with this slot (0 for the first one of the sandbox).
    pub(crate) async fn mount(slot: usize, layers: LayerStack, ephemeral: bool) -> Result<Self> {
        let mut root = Self { path: format!("/c/{slot}"), layers, mounts: Vec::new() };
        match root.mount_writable(slot, ephemeral).await {
            Ok(()) => Ok(root),
            Err(failure) => {
                root.unmount();
                Err(failure)
            }
        }
    }

    async fn mount_writable(&mut self, slot: usize, ephemeral: bool) -> Result<()> {
        let scratch = find_disk("scratch", slot).await?;
        let writable = format!("/s/{slot}");
        make_directory("/s")?;
        make_directory(&writable)?;
        // The disk is made so that its inode tables need never be written. What is thrown away with the sandbox need not
        // reach the disk in any order, or at all.
        let data = if ephemeral { "noinit_itable,nobarrier" } else { "noinit_itable" };
        mount(Some(scratch.as_str()), writable.as_str(), Some("ext4"), MsFlags::empty(), Some(data))
            .doing(|| format!("the writable part ({scratch})"))?;
        self.mounts.push(writable.clone());
        let (upper, work) = (format!("{writable}/upper"), format!("{writable}/work"));
        make_directory(&upper)?;
        make_directory(&work)?;
        make_directory("/c")?;
        make_directory(&self.path)?;
        let volatile = if ephemeral { ",volatile" } else { "" };
        let data = format!("lowerdir={},upperdir={upper},workdir={work}{volatile}", self.layers.lower);
        mount(Some("overlay"), self.path.as_str(), Some("overlay"), MsFlags::empty(), Some(data.as_str()))
            .doing(|| "the root file system")?;
        self.mounts.push(self.path.clone());
        Ok(())
    }

    /// Takes everything down, the last first.
    pub(crate) fn unmount(mut self) {
        self.unmount_writable();
        self.layers.unmount();
    }

    /// Takes everything down but the layers, and gives them back. The disk can be mounted for another container afterwards.
    pub(crate) fn into_layers(mut self) -> LayerStack {
        if self.mounts.len() > 1
            && let Some(overlay) = self.mounts.pop()
        {
            unmount(&overlay);
            // overlayfs marks what it has not synced, and refuses to take it up again.
            let _ =
                self.mounts.last().map(|scratch| std::fs::remove_dir_all(Path::new(scratch).join("work").join("work")));
        }
        self.unmount_writable();
        self.layers
    }

    /// Takes the overlay and the scratch disk down, which puts the disk's file system to rest.
    pub(crate) fn unmount_writable(&mut self) {
        for path in self.mounts.drain(..).rev() {
            unmount(&path);
        }
    }
}
