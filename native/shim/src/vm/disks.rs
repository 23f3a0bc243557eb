//! Puts a container's disks into the machine's slots.

use crate::vm::layers;
use crate::vm::monitor::Monitor;
use crate::vm::slots::{LAYERS_NODE, SCRATCH_NODE};
use bulkhead_protocol::{Failure, FailureCode, Rootfs};
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
    /// Id of the container that has them. Locked over an assignment.
    owner: Mutex<Option<String>>,
}

impl Disks {
    /// Slots that are still empty.
    pub fn new(monitor: Monitor) -> Self {
        Self { monitor, owner: Mutex::new(None) }
    }

    /// Gives the slots to a container, for the rest of the machine's life. The guest may be running.
    pub async fn assign(&self, container: &str, rootfs: &Rootfs, ephemeral: bool) -> Result<(), Failure> {
        let mut owner = self.owner.lock().await;
        if let Some(owner) = &*owner {
            let message =
                format!("container {container} cannot join this machine: its disk slots belong to container {owner}");
            return Err(Failure::new(FailureCode::WrongState, message));
        }
        let images = layers::open_layers(rootfs)?;
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
        *owner = Some(container.to_owned());
        Ok(())
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

fn raw_node(name: &str, child: &str, read_only: bool) -> Value {
    json!({ "driver": "raw", "node-name": name, "file": child, "read-only": read_only })
}
