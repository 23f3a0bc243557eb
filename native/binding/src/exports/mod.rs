//! The C ABI.

mod arguments;
mod host;
mod kvm;

use std::ffi::{CString, c_char};

use crate::fault::{self, Outcome};
use crate::handles::{self, Object};

/// Version of this ABI. A caller made for another version must not go on.
pub const BH_ABI_VERSION: u32 = 1;

/// The version of the ABI that this library has; compare with `BH_ABI_VERSION`.
#[unsafe(no_mangle)]
pub extern "C" fn bh_abi_version() -> u32 {
    BH_ABI_VERSION
}

/// Copies the calling thread's last error, JSON `{"code", "errno"?, "object", "message", "needed_bytes"?}`, with a closing zero byte, cut
/// to `capacity`. Gives the length of the whole text without the zero; 0 if there was no error. `buffer` may be null if `capacity` is 0.
///
/// # Safety
/// `buffer` points to `capacity` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_last_error(buffer: *mut c_char, capacity: usize) -> usize {
    let text = fault::last_json();
    if !buffer.is_null() && capacity > 0 {
        let length = text.len().min(capacity - 1);
        // SAFETY: `length` bytes and a zero fit into the caller's `capacity` bytes.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast(), length);
            buffer.add(length).write(0);
        }
    }
    text.len()
}

/// Closes a handle of any kind. A vCPU's run in progress ends; a file lock is released. A machine's memory stays until its vCPUs are closed.
#[unsafe(no_mangle)]
pub extern "C" fn bh_close(handle: u64) -> i32 {
    fault::guard_code(|| {
        let object = handles::remove(handle)?;
        if let Object::Vcpu(vcpu) = &object {
            vcpu.kick()?;
        }
        Ok(0)
    })
}

/// Frees a reply of this library. Null is allowed.
///
/// # Safety
/// `reply` came from this library and was not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_free(reply: *mut c_char) {
    if !reply.is_null() {
        // SAFETY: by the caller's promise it came from `CString::into_raw` in `arguments::effect`.
        drop(unsafe { CString::from_raw(reply) });
    }
}

fn give_handle(object: Object, target: *mut u64) -> Outcome<i32> {
    let slot = arguments::target(target, "handle")?;
    *slot = handles::insert(object)?;
    Ok(0)
}
