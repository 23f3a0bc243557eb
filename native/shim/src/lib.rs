//! The shim: one small process per sandbox, for both walls. It is the parent and reaper of what runs, and owns what must
//! outlive the daemon: output by offset, the json-file log, the fsynced exit record, held host ports.
//!
//! Rooms: [`wall`] is the seam; below it [`os`] (runc on the host's kernel) and [`vm`] (a machine of its own); above it
//! the core ([`sandbox`], [`process`], [`output`], [`server`]), which never asks which wall it has.
//!
//! A life: config from descriptor 3 → ports held → network made → socket bound → wall started → `{"ready":true}` on
//! descriptor 4 → requests. When the init of the last container has ended, its exit is recorded and told, then the shim
//! closes the sandbox down by itself. It ends after `POST /v1/sandbox/release` once all answers are out, or when no
//! client has been connected for 10 s, and removes its runtime directory. SIGTERM stops the sandbox with 10 s of grace.
//!
//! A pooled machine ([`vm`]) is ready when it waits, and gets ports, network and names with its assignment; a template is no sandbox:
//! a machine is booted, saved and ended.
//!
//! If it is killed by force, its mounts, its ports, its tap and an unused network namespace go with it, and the machine
//! process gets SIGKILL. What remains: the processes of containers on the host's kernel (found by the cgroup that the spec
//! names; with the last of them go their mounts, network namespace and veth pair), that cgroup, and the files of the
//! runtime directory.

pub mod exit_record;
pub mod framing;
pub mod json_log;
pub mod network;
pub mod os;
pub mod output;
pub mod phases;
pub mod priority;
pub mod process;
pub mod reaper;
pub mod runtime_dir;
pub mod sandbox;
pub mod server;
pub mod vm;
pub mod wall;
