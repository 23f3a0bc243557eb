//! KVM objects: device, machine with its memory, virtual CPU with its thread.

mod processor;
mod registers;
mod vcpu;
mod vm;

use std::ffi::CStr;
use std::sync::Arc;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};

use crate::fault::{Context, Outcome};

pub use processor::BhExit;
pub use registers::{BhCpuidEntry, BhRegisters, BhSystemRegisters};
pub use vcpu::Vcpu;
pub use vm::Vm;

/// An open KVM device.
pub struct Kvm {
    device: kvm_ioctls::Kvm,
    path: String,
}

impl Kvm {
    /// Opens the device at `path`.
    pub fn open(path: &CStr) -> Outcome<Self> {
        let name = path.to_string_lossy().into_owned();
        let device = kvm_ioctls::Kvm::new_with_path(path).context("open", name.clone())?;
        Ok(Self { device, path: name })
    }

    /// Version of the kernel's interface: 12 since Linux 2.6.22.
    pub fn api_version(&self) -> Outcome<i32> {
        let version = self.device.get_api_version();
        if version < 0 {
            return Err(nix::Error::last()).context("read the KVM version of", self.path.clone());
        }
        Ok(version)
    }

    /// What the kernel answers for `KVM_CHECK_EXTENSION`: 0 if it lacks the capability, else 1 or a limit.
    pub fn capability(&self, number: u32) -> Outcome<i32> {
        let value = self.device.check_extension_raw(number.into());
        if value < 0 {
            return Err(nix::Error::last()).context("check a capability of", self.path.clone());
        }
        Ok(value)
    }

    /// The CPUID leaves that the kernel can give a guest.
    pub fn supported_cpuid(&self) -> Outcome<CpuId> {
        self.device.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).context("read supported CPUID of", self.path.clone())
    }

    /// A machine without memory and vCPUs.
    pub fn create_vm(self: &Arc<Self>) -> Outcome<Vm> {
        let vm =
            retry_interrupted(|| self.device.create_vm()).context("create a virtual machine on", self.path.clone())?;
        Ok(Vm::new(self.clone(), vm))
    }
}

/// The kernel gives up the creation of a machine or a vCPU when a signal, for example of the caller's profiler, comes in between.
fn retry_interrupted<T>(mut create: impl FnMut() -> Result<T, kvm_ioctls::Error>) -> Result<T, kvm_ioctls::Error> {
    loop {
        match create() {
            Err(error) if error.errno() == libc::EINTR => {}
            outcome => return outcome,
        }
    }
}
