//! The tap of a sandbox that is a machine.

use super::netlink::RouteSocket;
use super::{bridge_index, network_failure};
use bulkhead_protocol::{Failure, FailureCode, Network};
use nix::net::if_::if_nametoindex;
use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

// TUNSETIFF is _IOW('T', 202, int) but takes a `struct ifreq` (linux/if_tun.h), so the usual macro would check the wrong size.
nix::ioctl_write_ptr_bad!(
    tun_set_interface,
    nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
    libc::ifreq
);

/// Makes a tap, down and connected to nothing. It lives as long as the descriptor.
pub fn create(name: &str) -> Result<OwnedFd, Failure> {
    let tap = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .map_err(|cause| network_failure("open /dev/net/tun", &cause))?;
    // SAFETY: ifreq is plain data for which all zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() {
        let message = format!("network: interface name \"{name}\" must have 1 to 15 bytes");
        return Err(Failure::new(FailureCode::InvalidRequest, message));
    }
    for (target, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *target = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags =
        (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL) as libc::c_short;
    // SAFETY: the descriptor is the tun device, the pointer is to a filled ifreq that lives over the call.
    unsafe { tun_set_interface(tap.as_raw_fd(), &raw const request) }
        .map_err(|cause| network_failure(&format!("make tap {name}"), &cause))?;
    Ok(tap.into())
}

/// Joins a network's tap to its bridge, and brings it up.
pub fn join(network: &Network) -> Result<(), Failure> {
    let name = network.host_interface.as_str();
    let bridge = bridge_index(&network.bridge)?;
    let link = if_nametoindex(name).map_err(|cause| network_failure(&format!("find tap {name}"), &cause))?;
    RouteSocket::open()
        .and_then(|mut socket| socket.join_bridge(link, bridge, network.mtu))
        .map_err(|cause| network_failure(&format!("join tap {name} to {}", network.bridge), &cause))
}
