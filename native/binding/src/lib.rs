//! libbulkhead: KVM and host effects behind a C ABI.
//!
//! An export parses its arguments and calls a safe function of `kvm` or `host`; nothing else lives in `exports`.
//! What blocks without bound (a vCPU's run, the end of a process) is offered as a pollable descriptor instead.

mod exports;
mod fault;
mod handles;
mod host;
mod kvm;
