//! One entry into guest code, and what it ended with.

use std::ptr::NonNull;

use kvm_ioctls::{VcpuExit, VcpuFd};
use nix::errno::Errno;

/// A run was ended by a kick.
pub const BH_EXIT_INTERRUPTED: u32 = 0;
/// The guest wrote to a port; the data follows.
pub const BH_EXIT_IO_OUT: u32 = 1;
/// The guest reads from a port: answer with `bh_vcpu_answer` before the next run.
pub const BH_EXIT_IO_IN: u32 = 2;
/// The guest reads an address without memory: answer with `bh_vcpu_answer` before the next run.
pub const BH_EXIT_MMIO_READ: u32 = 3;
/// The guest wrote to an address without memory; the data follows.
pub const BH_EXIT_MMIO_WRITE: u32 = 4;
/// The guest halted.
pub const BH_EXIT_HLT: u32 = 5;
/// The guest shut down, usually by a triple fault.
pub const BH_EXIT_SHUTDOWN: u32 = 6;
/// The processor refused the guest's state; `reason` is the processor's own.
pub const BH_EXIT_FAIL_ENTRY: u32 = 7;
/// KVM gave up; `reason` is the suberror, the data are up to 16 64-bit words.
pub const BH_EXIT_INTERNAL_ERROR: u32 = 8;
/// The guest asked for a reset or power-off; `reason` is the event's type.
pub const BH_EXIT_SYSTEM_EVENT: u32 = 9;
/// Another exit; `reason` is the kernel's exit reason.
pub const BH_EXIT_OTHER: u32 = 10;

/// Why a run ended.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct BhExit {
    /// One of `BH_EXIT_*`.
    pub kind: u32,
    /// Bytes of data that belong to the exit.
    pub data_bytes: u32,
    /// Port, or guest-physical address.
    pub address: u64,
    /// Reason, suberror or type, by kind.
    pub reason: u64,
    /// Size of one access in bytes; a string instruction moves several at once.
    pub access_bytes: u32,
    /// Host processor of a failed entry.
    pub host_cpu: u32,
}

/// An exit and its data.
pub struct Exit {
    /// The fixed part.
    pub fields: BhExit,
    /// What the guest wrote, or the words of an internal error.
    pub data: Vec<u8>,
}

/// Where the answer to a read goes: bytes of the vCPU's shared page.
pub(super) struct Answer(pub(super) NonNull<u8>, pub(super) usize);

/// The part that only the holder of the vCPU touches.
pub(super) struct Processor {
    pub(super) fd: VcpuFd,
    pub(super) answer: Option<Answer>,
}

// SAFETY: `Answer` points into the page that `fd` keeps mapped, and is used only under the lock that holds both.
unsafe impl Send for Processor {}

impl Processor {
    /// One KVM_RUN.
    pub(super) fn step(&mut self) -> Result<Exit, Errno> {
        let mut fields = BhExit::default();
        let mut data = Vec::new();
        let mut answer = None;
        let outcome = self.fd.run().map_err(|error| Errno::from_raw(error.errno()))?;
        let mut needs_page = false;
        match outcome {
            VcpuExit::IoOut(port, bytes) => {
                (fields.kind, fields.address, data) = (BH_EXIT_IO_OUT, port.into(), bytes.to_vec());
                needs_page = true;
            }
            VcpuExit::IoIn(port, bytes) => {
                (fields.kind, fields.address, fields.data_bytes) = (BH_EXIT_IO_IN, port.into(), bytes.len() as u32);
                answer = NonNull::new(bytes.as_mut_ptr()).map(|target| Answer(target, bytes.len()));
                needs_page = true;
            }
            VcpuExit::MmioRead(address, bytes) => {
                (fields.kind, fields.address, fields.data_bytes) = (BH_EXIT_MMIO_READ, address, bytes.len() as u32);
                fields.access_bytes = bytes.len() as u32;
                answer = NonNull::new(bytes.as_mut_ptr()).map(|target| Answer(target, bytes.len()));
            }
            VcpuExit::MmioWrite(address, bytes) => {
                (fields.kind, fields.address, data) = (BH_EXIT_MMIO_WRITE, address, bytes.to_vec());
                fields.access_bytes = bytes.len() as u32;
            }
            VcpuExit::Hlt => fields.kind = BH_EXIT_HLT,
            VcpuExit::Shutdown => fields.kind = BH_EXIT_SHUTDOWN,
            VcpuExit::FailEntry(reason, cpu) => {
                (fields.kind, fields.reason, fields.host_cpu) = (BH_EXIT_FAIL_ENTRY, reason, cpu);
            }
            VcpuExit::InternalError => {
                fields.kind = BH_EXIT_INTERNAL_ERROR;
                needs_page = true;
            }
            VcpuExit::SystemEvent(kind, _) => (fields.kind, fields.reason) = (BH_EXIT_SYSTEM_EVENT, kind.into()),
            _ => {
                fields.kind = BH_EXIT_OTHER;
                needs_page = true;
            }
        }
        if needs_page {
            self.read_page(&mut fields, &mut data);
        }
        self.answer = answer;
        if self.answer.is_none() {
            fields.data_bytes = data.len() as u32;
        }
        Ok(Exit { fields, data })
    }

    /// What kvm-ioctls leaves in the shared page.
    fn read_page(&mut self, fields: &mut BhExit, data: &mut Vec<u8>) {
        let run = self.fd.get_kvm_run();
        match fields.kind {
            BH_EXIT_IO_IN | BH_EXIT_IO_OUT => {
                // SAFETY: for this exit reason the kernel filled the union's `io`.
                fields.access_bytes = unsafe { run.__bindgen_anon_1.io.size }.into();
            }
            BH_EXIT_INTERNAL_ERROR => {
                // SAFETY: for this exit reason the kernel filled the union's `internal`.
                let internal = unsafe { run.__bindgen_anon_1.internal };
                fields.reason = internal.suberror.into();
                let words = internal.data.iter().take(internal.ndata as usize);
                data.extend(words.flat_map(|word| word.to_le_bytes()));
            }
            _ => fields.reason = run.exit_reason.into(),
        }
    }
}
