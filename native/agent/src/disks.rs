//! The disks of a machine, found by what they are for.

use crate::failure::{Result, errno_of, internal};
use bulkhead_protocol::{Failure, FailureCode};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a disk may take to appear.
const DEVICE_DEADLINE: Duration = Duration::from_secs(5);

/// The device of a role, by its serial number (`layers`, `scratch`; from the second container on `layers1`, `scratch1` …)
/// or, where disks have none, by its place (two disks for each slot, layers first). Waits for it.
pub(crate) async fn find_disk(role: &str, slot: usize) -> Result<String> {
    let serial = if slot == 0 { role.to_owned() } else { format!("{role}{slot}") };
    let place = slot * 2 + usize::from(role == "scratch");
    let deadline = Instant::now() + DEVICE_DEADLINE;
    loop {
        if let Some(device) = look_for_disk(&serial, place) {
            return Ok(device);
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(FailureCode::MachineFailed, format!("the machine has no disk {serial}")));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn look_for_disk(serial: &str, place: usize) -> Option<String> {
    let mut disks: Vec<String> = std::fs::read_dir("/sys/block")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("vd"))
        .collect();
    disks.sort_by_key(|name| (name.len(), name.clone()));
    let mut without_serial = true;
    for name in &disks {
        let text = std::fs::read_to_string(format!("/sys/block/{name}/serial")).unwrap_or_default();
        let text = text.trim_matches(['\0', '\n', ' ']);
        without_serial &= text.is_empty();
        if text == serial {
            return existing(name);
        }
    }
    disks.get(place).filter(|_| without_serial).and_then(|name| existing(name))
}

fn existing(name: &str) -> Option<String> {
    let path = format!("/dev/{name}");
    Path::new(&path).exists().then_some(path)
}

/// Makes a directory if it is not there.
pub(crate) fn make_directory(path: &str) -> Result<()> {
    match std::fs::create_dir(path) {
        Ok(()) => Ok(()),
        Err(error) if errno_of(&error) == Errno::EEXIST => Ok(()),
        Err(error) => Err(internal(path, errno_of(&error))),
    }
}

/// Unmounts; one that is still in use is detached, and the caller flushes it.
pub(crate) fn unmount(path: &str) {
    if umount2(path, MntFlags::empty()).is_err() {
        let _ = umount2(path, MntFlags::MNT_DETACH);
    }
}
