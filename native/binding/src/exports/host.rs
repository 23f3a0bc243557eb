//! Host effects from any language: a JSON request in, a JSON reply out.
//!
//! A reply is always given, if `reply` is not null: the result, or the error. Free it with `bh_free`.

use std::ffi::c_char;
use std::sync::Arc;

use serde::Serialize;

use super::arguments::effect;
use crate::fault::guard_code;
use crate::handles::{self, Object};
use crate::host::{clock, files, links, mounts, processes, routes};

/// Makes a bridge be as wanted, up and without spanning tree: `{"name", "address": {"address", "prefix_length"} | null, "mtu_bytes"}` →
/// `{"index", "created", "hardware_address"}`. A link of another kind with that name is EEXIST.
///
/// # Safety
/// `request` is a zero-terminated string; `reply` is null or points to a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_bridge_ensure(request: *const c_char, reply: *mut *mut c_char) -> i32 {
    effect(request, reply, links::ensure_bridge)
}

/// Deletes a link of any kind: `{"name"}` → `{"deleted"}`, false if there was none.
///
/// # Safety
/// `request` is a zero-terminated string; `reply` is null or points to a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_link_delete(request: *const c_char, reply: *mut *mut c_char) -> i32 {
    effect(request, reply, links::delete_link)
}

/// Lists links: `{"name_prefix"}` → `[{"name", "index", "kind", "up", "mtu_bytes", "hardware_address", "bridge_index"}]`.
///
/// # Safety
/// `request` is a zero-terminated string; `reply` is null or points to a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_link_list(request: *const c_char, reply: *mut *mut c_char) -> i32 {
    effect(request, reply, links::list_links)
}

/// Lets the host forward IPv4: `{}` → `{"was_enabled"}`.
///
/// # Safety
/// `request` is a zero-terminated string; `reply` is null or points to a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_forwarding_enable(request: *const c_char, reply: *mut *mut c_char) -> i32 {
    effect(request, reply, links::enable_forwarding)
}

/// All addresses, and the routes of the main table: `{}` → `{"addresses": [{"address", "prefix_length", "link_index"}],
/// "routes": [{"destination", "prefix_length", "gateway"?, "link_index"}]}`.
///
/// # Safety
/// `request` is a zero-terminated string; `reply` is null or points to a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_route_list(request: *const c_char, reply: *mut *mut c_char) -> i32 {
    effect(request, reply, routes::list_routes)
}

/// Mounts an EROFS image read-only, nodev and nosuid: `{"image", "target", "force_loop"?}` → `{"method": "file" | "loop",
/// "loop_device"?}`.
///
/// # Safety
/// `request` is a zero-terminated string; `reply` is null or points to a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_erofs_mount(request: *const c_char, reply: *mut *mut c_char) -> i32 {
    effect(request, reply, mounts::mount_erofs)
}

/// Unmounts: `{"target", "detach"?}` → `{"unmounted"}`, false if nothing was mounted there.
///
/// # Safety
/// `request` is a zero-terminated string; `reply` is null or points to a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_unmount(request: *const c_char, reply: *mut *mut c_char) -> i32 {
    effect(request, reply, mounts::unmount)
}

/// Lists mounts at and below a directory in the order they were made: `{"directory"}` → `[{"id", "parent_id", "device", "target",
/// "file_system", "source", "options"}]`.
///
/// # Safety
/// `request` is a zero-terminated string; `reply` is null or points to a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_mount_list(request: *const c_char, reply: *mut *mut c_char) -> i32 {
    effect(request, reply, mounts::list_mounts)
}

/// Copies a file and keeps its holes; the target must not exist: `{"source", "target", "mode"}` → `{"size_bytes", "data_bytes"}`.
///
/// # Safety
/// `request` is a zero-terminated string; `reply` is null or points to a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_file_copy_sparse(request: *const c_char, reply: *mut *mut c_char) -> i32 {
    effect(request, reply, files::copy_sparse)
}

/// Room on the file system of a path: `{"path"}` → `{"free_bytes", "total_bytes", "free_inodes"}`.
///
/// # Safety
/// `request` is a zero-terminated string; `reply` is null or points to a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_file_free_space(request: *const c_char, reply: *mut *mut c_char) -> i32 {
    effect(request, reply, files::free_space)
}

/// A file's content, whatever of it is stored as holes: `{"path"}` → `{"sha256", "size_bytes", "data_bytes"}`. The digest is over the size and
/// over number and bytes of each page of 4 KiB that is not all zeroes.
///
/// # Safety
/// `request` is a zero-terminated string; `reply` is null or points to a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_file_hash_sparse(request: *const c_char, reply: *mut *mut c_char) -> i32 {
    effect(request, reply, files::hash_sparse)
}

/// State of a process: `{"pid", "start_time_ticks"?}` → `{"pid", "parent_pid", "start_time_ticks", "state"}`. ESRCH if there is none, or
/// if it started at another time.
///
/// # Safety
/// `request` is a zero-terminated string; `reply` is null or points to a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_process_read(request: *const c_char, reply: *mut *mut c_char) -> i32 {
    effect(request, reply, processes::read_process)
}

/// Frequency of the host's time-stamp counter: `{}` → `{"khz", "source": "kvm" | "cpuid" | "hypervisor" | "measured"}`.
///
/// # Safety
/// `request` is a zero-terminated string; `reply` is null or points to a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_tsc_frequency(request: *const c_char, reply: *mut *mut c_char) -> i32 {
    effect(request, reply, clock::tsc_frequency)
}

/// A descriptor that the library holds.
#[derive(Serialize)]
struct Held {
    handle: u64,
    /// For polling only; it belongs to the handle.
    descriptor: i32,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    process: Option<processes::ProcessFacts>,
}

/// Locks a file exclusively until the handle is closed or the process ends: `{"path"}` → `{"handle", "descriptor"}`. EAGAIN if another
/// process has it.
///
/// # Safety
/// `request` is a zero-terminated string; `reply` is null or points to a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_file_lock(request: *const c_char, reply: *mut *mut c_char) -> i32 {
    effect(request, reply, |request: files::PathRequest| {
        let file = files::lock_file(request.path())?;
        let descriptor = files::number(&file);
        Ok(Held { handle: handles::insert(Object::Descriptor(Arc::new(file)))?, descriptor, process: None })
    })
}

/// Holds on to a process: `{"pid", "start_time_ticks"?}` → `{"handle", "descriptor", "pid", "parent_pid", "start_time_ticks", "state"}`. The
/// descriptor is readable when the process has ended.
///
/// # Safety
/// `request` is a zero-terminated string; `reply` is null or points to a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bh_process_open(request: *const c_char, reply: *mut *mut c_char) -> i32 {
    effect(request, reply, |request: processes::ProcessRequest| {
        let (pidfd, facts) = processes::open_process(request)?;
        let descriptor = files::number(&pidfd);
        Ok(Held { handle: handles::insert(Object::Descriptor(Arc::new(pidfd)))?, descriptor, process: Some(facts) })
    })
}

/// Signals a process that is held: 1 if it was there, 0 if it has ended. Signal 0 only asks.
#[unsafe(no_mangle)]
pub extern "C" fn bh_process_signal(process: u64, signal: i32) -> i32 {
    guard_code(|| processes::signal_process(&*handles::descriptor(process)?, signal).map(i32::from))
}
