//! The table behind the opaque handles: a number given out once, looked up with its kind, never reused.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, RwLock};

use crate::fault::{BH_ERROR_PANIC, BH_ERROR_STALE_HANDLE, Fault, Outcome};
use crate::kvm::{Kvm, Vcpu, Vm};

/// What a handle can stand for.
pub enum Object {
    /// An open `/dev/kvm`.
    Kvm(Arc<Kvm>),
    /// A virtual machine and its memory.
    Vm(Arc<Vm>),
    /// A virtual CPU and its thread.
    Vcpu(Arc<Vcpu>),
    /// A file descriptor that is held open: a file lock, a pidfd.
    Descriptor(Arc<OwnedFd>),
}

impl Object {
    fn kind(&self) -> &'static str {
        match self {
            Self::Kvm(_) => "kvm",
            Self::Vm(_) => "vm",
            Self::Vcpu(_) => "vcpu",
            Self::Descriptor(_) => "descriptor",
        }
    }
}

static OBJECTS: LazyLock<RwLock<HashMap<u64, Object>>> = LazyLock::new(Default::default);
// Starts far from small integers, so that a file descriptor or a pid passed by mistake is never a valid handle.
static NEXT: AtomicU64 = AtomicU64::new(0x0001_0000_0000);

fn poisoned() -> Fault {
    Fault::new(BH_ERROR_PANIC, "handle table", "the handle table is unusable after an earlier failure")
}

/// Puts an object into the table and gives its handle.
pub fn insert(object: Object) -> Outcome<u64> {
    let handle = NEXT.fetch_add(1, Ordering::Relaxed);
    OBJECTS.write().map_err(|_| poisoned())?.insert(handle, object);
    Ok(handle)
}

/// Takes an object out of the table; it ends when the last call that uses it returns.
pub fn remove(handle: u64) -> Outcome<Object> {
    let removed = OBJECTS.write().map_err(|_| poisoned())?.remove(&handle);
    removed.ok_or_else(|| {
        let message = format!("handle {handle:#x} is not open: it is closed already or was never given out");
        Fault::new(BH_ERROR_STALE_HANDLE, format!("handle {handle:#x}"), message)
    })
}

fn look_up<T>(handle: u64, wanted: &str, select: impl FnOnce(&Object) -> Option<T>) -> Outcome<T> {
    let objects = OBJECTS.read().map_err(|_| poisoned())?;
    let found = objects.get(&handle);
    found.and_then(select).ok_or_else(|| {
        let actual = found.map_or("not open", Object::kind);
        let message = format!("handle {handle:#x} should be an open {wanted}, but is {actual}");
        Fault::new(BH_ERROR_STALE_HANDLE, format!("handle {handle:#x}"), message)
    })
}

/// The KVM device of a handle.
pub fn kvm(handle: u64) -> Outcome<Arc<Kvm>> {
    look_up(handle, "kvm", |object| if let Object::Kvm(kvm) = object { Some(kvm.clone()) } else { None })
}

/// The machine of a handle.
pub fn vm(handle: u64) -> Outcome<Arc<Vm>> {
    look_up(handle, "vm", |object| if let Object::Vm(vm) = object { Some(vm.clone()) } else { None })
}

/// The vCPU of a handle.
pub fn vcpu(handle: u64) -> Outcome<Arc<Vcpu>> {
    look_up(handle, "vcpu", |object| if let Object::Vcpu(vcpu) = object { Some(vcpu.clone()) } else { None })
}

/// The file descriptor of a handle.
pub fn descriptor(handle: u64) -> Outcome<Arc<OwnedFd>> {
    look_up(handle, "descriptor", |object| if let Object::Descriptor(fd) = object { Some(fd.clone()) } else { None })
}
