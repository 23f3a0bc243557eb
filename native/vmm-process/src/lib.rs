//! The machine's process. It is started with one JSON value to read from a descriptor (`bulkhead-vmm [CONFIG_FD]`, 3 unless said):
//!
//! ```json
//! {"machine": {…}, "monitor": {"fd": 5}, "kvm": {"fd": 6}, "jail": {"uid": 61000, "gid": 61000}, "start": true}
//! ```
//!
//! `machine` is [`bulkhead_vmm::spec::MachineSpec`]. Everything else that it may touch is named there by the number of an inherited
//! descriptor; all others are closed. Then it locks itself in: own mount, network, IPC and UTS namespace, an empty read-only root, its own
//! user, no capabilities, no new privileges, and in each thread a seccomp filter for what that kind of thread does. Any other system
//! call kills the process.
//!
//! The [`monitor`] answers JSON lines on a stream socket. Its end of file ends the machine: nobody is there any more who could.
//!
//! Exit status: see [`status`].

pub mod jail;
pub mod monitor;
pub mod run;
pub mod seccomp;
pub mod status;
