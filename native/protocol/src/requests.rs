//! What is asked of a sandbox.

use crate::Network;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Body of `POST /v1/containers/{id}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateContainer {
    /// The OCI runtime-spec `config.json`, the same for both walls. `root.path` is ignored: the wall builds the root.
    pub spec: serde_json::Value,
    /// Its layers and writable part.
    pub rootfs: Rootfs,
    /// Whether stdin is wanted; otherwise it is /dev/null.
    #[serde(default)]
    pub stdin: bool,
    /// Close stdin for good when the first writer's body ends (Docker's `StdinOnce`).
    #[serde(default)]
    pub stdin_once: bool,
    /// First size of the terminal, if the spec has one.
    #[serde(default)]
    pub terminal_size: Option<Resize>,
    /// Files written into the root before the process starts: path → content (`/etc/hosts`, `/etc/hostname`,
    /// `/etc/resolv.conf`). They replace what the image has there.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Where the shim writes the log; the agent ignores it.
    #[serde(default)]
    pub log: Option<Log>,
    /// `user[:group]` as in the image's or the user's words. Names are looked up in the root's own /etc/passwd and /etc/group, and
    /// replace `spec.process.user`'s ids; HOME is set from it where the environment has none.
    #[serde(default)]
    pub user: String,
    /// Names or numbers for further groups.
    #[serde(default)]
    pub additional_groups: Vec<String>,
    /// The writable part is thrown away with the sandbox (`--rm`): nothing need be flushed at the end.
    #[serde(default)]
    pub ephemeral: bool,
    /// Set by the shim for the agent, none otherwise: what makes this machine this sandbox.
    #[serde(default)]
    pub guest: Option<GuestIdentity>,
}

/// The root file system: read-only layers, lowest first, and one writable part.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rootfs {
    /// Lowest first.
    pub layers: Vec<Layer>,
    /// vm wall: the raw scratch disk (ext4 inside, made from the template); os wall: a directory for `upper` and `work`.
    pub writable_path: String,
    /// Mount the whole read-only (`--read-only`).
    #[serde(default)]
    pub read_only: bool,
}

/// One layer, an EROFS image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// Path of the EROFS image on the host (vm wall; the agent ignores it).
    pub image_path: String,
    /// Its size in bytes, a multiple of 4096: where the next one begins on the layers device.
    pub size_bytes: u64,
    /// Where the host has it mounted (os wall).
    #[serde(default)]
    pub mount_path: String,
}

/// What is renewed in a guest before any user code runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuestIdentity {
    /// Wall clock, nanoseconds since 1970.
    pub realtime_ns: u64,
    /// 64 bytes of entropy in hex.
    pub entropy: String,
    /// Host name.
    pub hostname: String,
    /// 32 hex digits.
    pub machine_id: String,
    /// The interface, or none: then the containers see the loopback only.
    #[serde(default)]
    pub network: Option<Network>,
}

/// Where the shim writes a container's output.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    /// `json-file` or `none`.
    pub driver: String,
    /// The first file; rotated ones get `.1`, `.2` ….
    pub path: String,
    /// Size at which a file is rotated, bytes; 0 is never.
    #[serde(default)]
    pub max_size_bytes: u64,
    /// How many files are kept, this one included; at least 1.
    #[serde(default)]
    pub max_files: u32,
}

/// A further process in a running container.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateProcess {
    /// The runtime-spec `process` object.
    pub process: serde_json::Value,
    /// As in [`CreateContainer::user`].
    #[serde(default)]
    pub user: String,
    /// As in [`CreateContainer::stdin`].
    #[serde(default)]
    pub stdin: bool,
    /// As in [`CreateContainer::terminal_size`].
    #[serde(default)]
    pub terminal_size: Option<Resize>,
}

/// A process was started.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Started {
    /// Process id: the host's for the os wall, the guest's for the vm wall.
    pub pid: u32,
}

/// Body of `kill`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kill {
    /// Signal number.
    pub signal: i32,
}

/// Body of `resize`, and a terminal's first size; in character cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// Body of `stop`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StopSandbox {
    /// After this the machine or the namespaces are killed.
    pub deadline_ms: u64,
}

/// Body of `DELETE /v1/containers/{id}`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemoveContainer {
    /// The layers stay mounted for the next container, which must have the same ones.
    #[serde(default)]
    pub keep_layers: bool,
}
