//! From C arguments to Rust values, and back.

use std::ffi::{CStr, CString, c_char};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::fault::{Fault, Outcome, guard};

/// Largest request that is looked at.
const REQUEST_LIMIT_BYTES: usize = 1 << 20;

/// A place the caller gave for one value.
pub fn target<'a, T>(pointer: *mut T, name: &str) -> Outcome<&'a mut T> {
    if pointer.is_null() || !pointer.is_aligned() {
        return Err(Fault::invalid(name, format!("the pointer for {name} is null or not aligned")));
    }
    // SAFETY: not null and aligned; each export's contract says that it points to a value that nobody else uses during the call.
    Ok(unsafe { &mut *pointer })
}

/// A value the caller gave by pointer.
pub fn source<'a, T>(pointer: *const T, name: &str) -> Outcome<&'a T> {
    target(pointer.cast_mut(), name).map(|value| &*value)
}

/// Bytes the caller gave.
pub fn bytes<'a, T>(pointer: *const T, length: usize, name: &str) -> Outcome<&'a [T]> {
    bytes_mut(pointer.cast_mut(), length, name).map(|slice| &*slice)
}

/// A buffer the caller gave.
pub fn bytes_mut<'a, T>(pointer: *mut T, length: usize, name: &str) -> Outcome<&'a mut [T]> {
    if length == 0 {
        return Ok(&mut []);
    }
    if pointer.is_null() || !pointer.is_aligned() || length > isize::MAX as usize / size_of::<T>() {
        return Err(Fault::invalid(name, format!("the buffer {name} is null, not aligned or too long")));
    }
    // SAFETY: not null, aligned, of a possible length; each export's contract says that the caller owns that many elements.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer, length) })
}

/// A zero-terminated string.
pub fn text<'a>(pointer: *const c_char, name: &str) -> Outcome<&'a CStr> {
    if pointer.is_null() {
        return Err(Fault::invalid(name, format!("{name} is null")));
    }
    // SAFETY: each export's contract says that it is a zero-terminated string that lives during the call.
    Ok(unsafe { CStr::from_ptr(pointer) })
}

/// A host effect: JSON request in, JSON reply out. The reply holds the fault if it fails: a caller that runs the call on another thread
/// (koffi's `async`) cannot read that thread's last error.
pub fn effect<Q: DeserializeOwned, R: Serialize>(
    request: *const c_char,
    reply: *mut *mut c_char,
    run: impl FnOnce(Q) -> Outcome<R>,
) -> i32 {
    let outcome = guard(|| {
        if !reply.is_null() {
            *target(reply, "reply")? = std::ptr::null_mut();
        }
        let request = text(request, "request")?.to_bytes();
        if request.len() > REQUEST_LIMIT_BYTES {
            return Err(Fault::invalid("request", format!("the request is longer than {REQUEST_LIMIT_BYTES} bytes")));
        }
        let request = serde_json::from_slice(request)
            .map_err(|error| Fault::invalid("request", format!("bad request: {error}")))?;
        let answer = run(request)?;
        serde_json::to_string(&answer)
            .map_err(|error| Fault::invalid("reply", format!("cannot write the reply: {error}")))
    });
    let (code, json) = match outcome {
        Ok(json) => (0, json),
        Err(fault) => (fault.code, fault.to_json()),
    };
    if let (Ok(slot), Ok(json)) = (target(reply, "reply"), CString::new(json)) {
        *slot = json.into_raw();
    }
    code
}
