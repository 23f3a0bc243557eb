//! The shim: one small process per sandbox, for both walls. It is the parent and reaper of what runs, and owns what must
//! outlive the daemon: output by offset, the json-file log, the fsynced exit record, held host ports.
//!
//! Rooms: [`wall`] is the seam; below it [`os`] (runc on the host's kernel) and [`vm`] (a machine of its own); above it
//! the core ([`sandbox`], [`process`], [`output`], [`server`]), which never asks which wall it has.

pub mod exit_record;
pub mod framing;
pub mod json_log;
pub mod network;
pub mod os;
pub mod output;
pub mod phases;
pub mod process;
pub mod reaper;
pub mod runtime_dir;
pub mod sandbox;
pub mod server;
pub mod vm;
pub mod wall;
