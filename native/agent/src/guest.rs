//! What makes a machine this sandbox and no copy of another: entropy, clock, names, network. Applied before any user
//! code runs, because a machine may be restored from a saved state that others were restored from too.

use crate::failure::{Doing, Result, internal, invalid};
use crate::interface;
use crate::moments::Moments;
use bulkhead_protocol::GuestIdentity;
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// From linux/random.h.
const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;

/// Bytes of entropy that are taken.
const ENTROPY_BYTES: usize = 64;

/// `struct rand_pool_info` with its buffer.
#[repr(C)]
struct PoolInfo {
    entropy_bits: i32,
    buffer_bytes: i32,
    buffer: [u8; ENTROPY_BYTES],
}

/// Applies all of it.
pub(crate) async fn apply(identity: &GuestIdentity, moments: &mut Moments) -> Result<()> {
    if !identity.entropy.is_empty() {
        add_entropy(&parse_entropy(&identity.entropy)?)?;
        moments.mark("guest-entropy");
    }
    if identity.realtime_ns != 0 {
        let time = TimeSpec::from_duration(Duration::from_nanos(identity.realtime_ns));
        clock_settime(ClockId::CLOCK_REALTIME, time).doing(|| "setting the clock")?;
    }
    if !identity.hostname.is_empty() {
        nix::unistd::sethostname(&identity.hostname).doing(|| "host name")?;
    }
    if !identity.machine_id.is_empty() {
        if identity.machine_id.len() != 32 || !identity.machine_id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(invalid("a machine id is 32 hex digits"));
        }
        std::fs::write("/run/machine-id", format!("{}\n", identity.machine_id)).doing(|| "/run/machine-id")?;
    }
    if identity.network.is_none() {
        // Every machine has an interface. Without a network nobody is to see it: the agent, which needs none, and all that it
        // starts move to where it is not.
        nix::sched::unshare(CloneFlags::CLONE_NEWNET).doing(|| "network namespace")?;
    }
    interface::bring_loopback_up()?;
    if let Some(network) = &identity.network {
        interface::configure(network).await?;
    }
    moments.mark("guest-network");
    Ok(())
}

/// Undoes what the next identity would not replace.
pub(crate) fn forget(identity: &GuestIdentity) -> Result<()> {
    match &identity.network {
        Some(network) => interface::forget_address(&network.interface),
        None => Ok(()),
    }
}

/// Both calls, in this order: the first alone leaves two copies of a machine with the same random numbers
/// (measured), since the generator takes new entropy in only now and then.
fn add_entropy(entropy: &[u8; ENTROPY_BYTES]) -> Result<()> {
    let device = std::fs::File::options().write(true).open("/dev/urandom").doing(|| "/dev/urandom")?;
    let info =
        PoolInfo { entropy_bits: (ENTROPY_BYTES * 8) as i32, buffer_bytes: ENTROPY_BYTES as i32, buffer: *entropy };
    // SAFETY: RNDADDENTROPY reads a rand_pool_info and the buffer behind it, whose size it is told.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), RNDADDENTROPY, &raw const info) })
        .map_err(|errno| internal("adding entropy", errno))?;
    // SAFETY: RNDRESEEDCRNG has no argument.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), RNDRESEEDCRNG) })
        .map_err(|errno| internal("seeding the random number generator", errno))?;
    Ok(())
}

fn parse_entropy(hex: &str) -> Result<[u8; ENTROPY_BYTES]> {
    let digits = hex.as_bytes();
    let mut bytes = [0; ENTROPY_BYTES];
    if digits.len() != ENTROPY_BYTES * 2 {
        return Err(invalid(format!("entropy is {} hex digits", ENTROPY_BYTES * 2)));
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = std::str::from_utf8(pair)
            .ok()
            .and_then(|pair| u8::from_str_radix(pair, 16).ok())
            .ok_or_else(|| invalid("entropy is hex digits"))?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_is_64_bytes_of_hex() {
        assert_eq!(parse_entropy(&"0f".repeat(64)).unwrap(), [15; 64]);
        assert!(parse_entropy("0f").is_err());
        assert!(parse_entropy(&"zz".repeat(64)).is_err());
    }
}
