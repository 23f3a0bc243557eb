//! The layers of an image: the layers device, cut into one partition for each, each mounted as EROFS.

use crate::disks::{find_disk, make_directory, unmount};
use crate::failure::{Doing, Result, invalid};
use crate::partition::{add_partition, delete_partition};
use bulkhead_protocol::Layer;
use nix::mount::{MsFlags, mount};
use std::os::fd::OwnedFd;

/// As many as overlayfs and the partition numbers are used for here.
const MAX_LAYERS: usize = 127;

/// The mounted layers in a slot.
#[derive(Debug)]
pub(crate) struct LayerStack {
    /// overlayfs's `lowerdir`, the uppermost first.
    pub(crate) lower: String,
    /// What they are: path on the host and size, lowest first.
    identity: Vec<(String, u64)>,
    mounts: Vec<String>,
    partitions: Vec<i32>,
    device: Option<OwnedFd>,
}

impl LayerStack {
    /// Mounts the layers of the slot's device.
    pub(crate) async fn mount(slot: usize, layers: &[Layer]) -> Result<Self> {
        let extents = plan_extents(layers)?;
        let mut stack = Self {
            lower: String::new(),
            identity: identity(layers),
            mounts: Vec::new(),
            partitions: Vec::new(),
            device: None,
        };
        match stack.mount_all(slot, &extents).await {
            Ok(()) => Ok(stack),
            Err(failure) => {
                stack.unmount();
                Err(failure)
            }
        }
    }

    async fn mount_all(&mut self, slot: usize, extents: &[(u64, u64)]) -> Result<()> {
        make_directory("/l")?;
        if extents.is_empty() {
            // An image without layers: an empty directory below.
            self.lower = format!("/l/{slot}");
            return make_directory(&self.lower);
        }
        let device = find_disk("layers", slot).await?;
        let handle: OwnedFd = std::fs::File::open(&device).doing(|| device.clone())?.into();
        for (index, (start, size)) in extents.iter().enumerate().rev() {
            let number = index + 1;
            let source = if extents.len() == 1 {
                device.clone()
            } else {
                add_partition(&handle, number as i32, *start, *size)?;
                self.partitions.push(number as i32);
                format!("{device}{number}")
            };
            let target = format!("/l/{slot}.{number}");
            make_directory(&target)?;
            mount(Some(source.as_str()), target.as_str(), Some("erofs"), MsFlags::MS_RDONLY, None::<&str>)
                .doing(|| format!("layer {number} of {}", extents.len()))?;
            if !self.lower.is_empty() {
                self.lower.push(':');
            }
            self.lower.push_str(&target);
            self.mounts.push(target);
        }
        self.device = Some(handle);
        Ok(())
    }

    /// Whether these are the layers that a container wants.
    pub(crate) fn holds(&self, layers: &[Layer]) -> bool {
        self.identity == identity(layers)
    }

    /// Unmounts them and joins the device again: the host may put another one in its place.
    pub(crate) fn unmount(mut self) {
        for path in self.mounts.drain(..).rev() {
            unmount(&path);
        }
        if let Some(device) = &self.device {
            for number in self.partitions.drain(..) {
                delete_partition(device, number);
            }
        }
    }
}

fn identity(layers: &[Layer]) -> Vec<(String, u64)> {
    layers.iter().map(|layer| (layer.image_path.clone(), layer.size_bytes)).collect()
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
