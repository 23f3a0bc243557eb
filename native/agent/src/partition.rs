//! Cutting the layers device: every layer becomes a partition, without a partition table (BLKPG).

use crate::failure::{Doing, Result};
use nix::errno::Errno;
use std::os::fd::{AsRawFd, OwnedFd};

const BLKPG: libc::c_ulong = 0x1269;
const ADD_PARTITION: i32 = 1;
const DELETE_PARTITION: i32 = 2;

/// `struct blkpg_partition` of linux/blkpg.h.
#[repr(C)]
struct Partition {
    start: i64,
    length: i64,
    number: i32,
    device_name: [u8; 64],
    volume_name: [u8; 64],
}

/// `struct blkpg_ioctl_arg` of linux/blkpg.h.
#[repr(C)]
struct Argument {
    operation: i32,
    flags: i32,
    data_length: i32,
    data: *mut Partition,
}

/// Makes partition `number` of the device, replacing one that is there.
pub(crate) fn add_partition(device: &OwnedFd, number: i32, start_bytes: u64, size_bytes: u64) -> Result<()> {
    let mut partition = Partition {
        start: start_bytes as i64,
        length: size_bytes as i64,
        number,
        device_name: [0; 64],
        volume_name: [0; 64],
    };
    let what = || format!("layer {number} at {start_bytes}");
    match change(device, ADD_PARTITION, &mut partition) {
        Err(Errno::EBUSY) => {
            change(device, DELETE_PARTITION, &mut partition).doing(what)?;
            change(device, ADD_PARTITION, &mut partition).doing(what)
        }
        result => result.doing(what),
    }
}

/// Removes partition `number`; one that is still in use stays until its place is wanted.
pub(crate) fn delete_partition(device: &OwnedFd, number: i32) {
    let mut partition = Partition { start: 0, length: 0, number, device_name: [0; 64], volume_name: [0; 64] };
    let _ = change(device, DELETE_PARTITION, &mut partition);
}

fn change(device: &OwnedFd, operation: i32, partition: &mut Partition) -> nix::Result<()> {
    let argument = Argument { operation, flags: 0, data_length: size_of::<Partition>() as i32, data: partition };
    // SAFETY: the argument points to a partition that lives through the call.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), BLKPG, &raw const argument) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_are_the_kernels() {
        assert_eq!(size_of::<Partition>(), 152);
        assert_eq!(size_of::<Argument>(), 24);
    }
}
