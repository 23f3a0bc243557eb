//! Puts a container's disks into the machine's slots.

use crate::vm::layers;
use crate::vm::monitor::Monitor;
use crate::vm::slots::{self, LAYERS_NODE, SCRATCH_NODE};
use bulkhead_protocol::{Failure, FailureCode, Layer, Rootfs};
use serde_json::{Value, json};
use std::os::fd::AsFd as _;
use tokio::sync::Mutex;

/// Descriptor sets: the scratch disk, the descriptor of the layers, then one for each layer.
const SCRATCH_SET: usize = 1;
const DESCRIPTOR_SET: usize = 2;
const FIRST_LAYER_SET: usize = 3;

/// The disk slots of one machine.
pub struct Disks {
    monitor: Monitor,
    /// Who has them. Locked over an assignment.
    owner: Mutex<Owner>,
}

#[derive(Default)]
struct Owner {
    container: Option<String>,
    /// How many layers it has.
    has_layers: usize,
    /// Layers that stay in their slot although nobody has it.
    kept_layers: Option<Vec<Layer>>,
}

impl Disks {
    /// Slots that are still empty.
    pub fn new(monitor: Monitor) -> Self {
        Self { monitor, owner: Mutex::default() }
    }

    /// Gives the slots to a container. The guest may be running. A container whose layers are in their slot already gets the scratch
    /// disk only.
    pub async fn assign(&self, container: &str, rootfs: &Rootfs, ephemeral: bool) -> Result<(), Failure> {
        let mut owner = self.owner.lock().await;
        if let Some(owner) = &owner.container {
            let message =
                format!("container {container} cannot join this machine: its disk slots belong to container {owner}");
            return Err(Failure::new(FailureCode::WrongState, message));
        }
        let images = match owner.kept_layers.take() {
            Some(kept) if kept == rootfs.layers => Vec::new(),
            kept => {
                if let Some(kept) = kept.filter(|kept| !kept.is_empty()) {
                    // Other layers: the guest, which has the old ones mounted, needs nothing of them to unmount them.
                    self.monitor.run("blockdev-reopen", json!({ "options": [empty_node(LAYERS_NODE, true)] })).await?;
                    self.remove_layers(kept.len()).await?;
                }
                layers::open_layers(rootfs)?
            }
        };
        let scratch = layers::open_scratch(rootfs)?;

        self.monitor.add_fd(scratch.as_fd(), SCRATCH_SET).await?;
        self.add_node("scratch-disk", scratch_node(ephemeral)).await?;
        let mut swaps = vec![raw_node(SCRATCH_NODE, "scratch-disk", false)];
        if !images.is_empty() {
            for (index, image) in images.iter().enumerate() {
                self.monitor.add_fd(image.as_fd(), FIRST_LAYER_SET + index).await?;
            }
            let sizes: Vec<u64> = rootfs.layers.iter().map(|layer| layer.size_bytes).collect();
            let descriptor = layers::text_file(&layers::descriptor(&sizes, FIRST_LAYER_SET)).map_err(|error| {
                Failure::new(FailureCode::Internal, format!("the list of layers of container {container}: {error}"))
            })?;
            self.monitor.add_fd(descriptor.as_fd(), DESCRIPTOR_SET).await?;
            self.add_node("layers-disk", layers_node()).await?;
            swaps.push(raw_node(LAYERS_NODE, "layers-disk", true));
        }
        self.monitor.run("blockdev-reopen", json!({ "options": swaps })).await?;
        owner.container = Some(container.to_owned());
        owner.has_layers = rootfs.layers.len();
        Ok(())
    }

    /// Empties the slots: the container has ended and the guest has nothing of them open. `keep` leaves these layers in theirs.
    pub async fn release(&self, keep: Option<&[Layer]>) -> Result<(), Failure> {
        let mut owner = self.owner.lock().await;
        let layers = std::mem::take(&mut owner.has_layers);
        owner.container = None;
        owner.kept_layers = keep.map(<[Layer]>::to_vec);
        let empties_layers = layers > 0 && keep.is_none();
        let mut swaps = vec![empty_node(SCRATCH_NODE, false)];
        if empties_layers {
            swaps.push(empty_node(LAYERS_NODE, true));
        }
        self.monitor.run("blockdev-reopen", json!({ "options": swaps })).await?;
        self.remove_node("scratch-disk").await?;
        self.remove_set(SCRATCH_SET).await?;
        if empties_layers { self.remove_layers(layers).await } else { Ok(()) }
    }

    async fn remove_layers(&self, count: usize) -> Result<(), Failure> {
        self.remove_node("layers-disk").await?;
        self.remove_set(DESCRIPTOR_SET).await?;
        for index in 0..count {
            self.remove_set(FIRST_LAYER_SET + index).await?;
        }
        Ok(())
    }

    async fn remove_node(&self, name: &str) -> Result<(), Failure> {
        self.monitor.run("blockdev-del", json!({ "node-name": name })).await.map(drop)
    }

    async fn remove_set(&self, set: usize) -> Result<(), Failure> {
        self.monitor.run("remove-fd", json!({ "fdset-id": set })).await.map(drop)
    }

    async fn add_node(&self, name: &str, mut node: Value) -> Result<(), Failure> {
        node["node-name"] = name.into();
        self.monitor.run("blockdev-add", node).await.map(drop)
    }
}

fn file(set: usize) -> String {
    format!("/dev/fdset/{set}")
}

fn scratch_node(ephemeral: bool) -> Value {
    json!({
        "driver": "file", "filename": file(SCRATCH_SET), "locking": "off", "discard": "unmap",
        // A disk that is thrown away need not survive the host.
        "cache": { "no-flush": ephemeral },
    })
}

fn layers_node() -> Value {
    json!({
        "driver": "vmdk", "read-only": true,
        "file": { "driver": "file", "filename": file(DESCRIPTOR_SET), "read-only": true, "locking": "off" },
    })
}

fn empty_node(name: &str, read_only: bool) -> Value {
    raw_node(name, &slots::empty_node(name), read_only)
}

fn raw_node(name: &str, child: &str, read_only: bool) -> Value {
    json!({ "driver": "raw", "node-name": name, "file": child, "read-only": read_only })
}
