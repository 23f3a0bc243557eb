//! A micro-VM on KVM: what one machine is made of, as a library. The process that holds it is `bulkhead-vmm-process`.
//!
//! A machine has memory that is a file, vCPU threads, an in-kernel interrupt controller, a serial port for the kernel's first words, and
//! virtio devices over MMIO that the guest finds through ACPI (`LNRO0005`). Everything that it holds comes in as a file descriptor.
//!
//! The guest is not trusted. Each request of it is parsed into a typed value first and executed then; nothing that it writes is a
//! reason to panic, and no number of it sizes an allocation unchecked. A queue that makes no sense stops its device (`DEVICE_NEEDS_RESET`).
//!
//! Threads: one per vCPU, one for disks (whose system calls block), one for everything else that moves bytes, and the caller's own.

pub mod acpi;
pub mod boot;
pub mod config;
pub mod cpuid;
pub mod devices;
pub mod error;
pub mod io_thread;
pub mod layout;
pub mod machine;
pub mod memory;
pub mod registers;
pub mod spec;
pub mod state;
pub mod threads;
pub mod vcpu;
pub mod virtio;

pub use config::MachineConfig;
pub use error::{Error, Result};
pub use machine::{Ending, Machine};
pub use threads::ThreadKind;
