//! Network interfaces by ioctl: no program of the image, and no netlink library, is needed for one address and one route.

use crate::failure::{Doing, Result, invalid};
use bulkhead_protocol::{Failure, FailureCode, Network};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long an interface may take to appear.
const INTERFACE_DEADLINE: Duration = Duration::from_secs(5);

/// Brings the loopback interface up.
pub(crate) fn bring_loopback_up() -> Result<()> {
    set_up(&control_socket()?, "lo")
}

/// Gives the machine's interface its name, address, route and size.
pub(crate) async fn configure(network: &Network) -> Result<()> {
    let address = parse_address(&network.ipv4_address)?;
    let mask = netmask(network.ipv4_prefix_length)?;
    let mac_address = parse_mac(&network.mac_address)?;
    let control = control_socket()?;
    let name = network.interface.as_str();
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains(['/', '\0']) {
        return Err(invalid(format!("{name:?} is not a name for an interface")));
    }
    let present = wait_for_interface(name).await?;
    if present != name {
        let mut request = request_for(&present);
        request.ifr_ifru.ifru_newname = name_bytes(name);
        ioctl(&control, libc::SIOCSIFNAME, &request).doing(|| format!("{present}: renaming to {name}"))?;
    }
    // As in Docker on a network without IPv6; an address that the kernel made of the hardware's would outlive it, too.
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
    let mut request = request_for(name);
    // SAFETY: sockaddr is plain data.
    request.ifr_ifru.ifru_hwaddr = unsafe { std::mem::zeroed() };
    // SAFETY: the member that was just written.
    let hardware = unsafe { &mut request.ifr_ifru.ifru_hwaddr };
    hardware.sa_family = libc::ARPHRD_ETHER;
    for (target, byte) in hardware.sa_data.iter_mut().zip(mac_address) {
        *target = byte as libc::c_char;
    }
    ioctl(&control, libc::SIOCSIFHWADDR, &request).doing(|| format!("{name}: address {}", network.mac_address))?;
    if network.mtu != 0 {
        let mut request = request_for(name);
        request.ifr_ifru.ifru_mtu = i32::try_from(network.mtu).unwrap_or(i32::MAX);
        ioctl(&control, libc::SIOCSIFMTU, &request).doing(|| format!("{name}: MTU {}", network.mtu))?;
    }
    for (code, value) in [(libc::SIOCSIFADDR, address), (libc::SIOCSIFNETMASK, mask)] {
        let mut request = request_for(name);
        request.ifr_ifru.ifru_addr = socket_address(value);
        ioctl(&control, code, &request).doing(|| format!("{name}: {}/{}", address, network.ipv4_prefix_length))?;
    }
    set_up(&control, name)?;
    if !network.ipv4_gateway.is_empty() {
        add_default_route(&control, parse_address(&network.ipv4_gateway)?)?;
    }
    Ok(())
}

/// Takes the interface's address away, and its routes with it. It stays up: the buffers that it was given then are there for the next
/// address, and its host end leads nowhere meanwhile.
pub(crate) fn forget_address(name: &str) -> Result<()> {
    let mut request = request_for(name);
    request.ifr_ifru.ifru_addr = socket_address(Ipv4Addr::UNSPECIFIED);
    ioctl(&control_socket()?, libc::SIOCSIFADDR, &request).doing(|| format!("{name}: giving its address up"))
}

fn control_socket() -> Result<OwnedFd> {
    socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).doing(|| "control socket")
}

/// The interface of that name, or else the machine's only one besides the loopback.
async fn wait_for_interface(name: &str) -> Result<String> {
    let deadline = Instant::now() + INTERFACE_DEADLINE;
    loop {
        let names: Vec<String> = std::fs::read_dir("/sys/class/net")
            .doing(|| "/sys/class/net")?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        let mut others = names.iter().filter(|present| present.starts_with("eth") || present.starts_with("en"));
        if let Some(present) = names.iter().find(|present| *present == name).or_else(|| others.next()) {
            return Ok(present.clone());
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(FailureCode::MachineFailed, "the machine has no network interface"));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn set_up(control: &OwnedFd, name: &str) -> Result<()> {
    let mut request = request_for(name);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    ioctl(control, libc::SIOCSIFFLAGS, &request).doing(|| format!("{name}: bringing it up"))
}

fn add_default_route(control: &OwnedFd, gateway: Ipv4Addr) -> Result<()> {
    // SAFETY: a structure of numbers and pointers, for which all zeros is valid.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = socket_address(gateway);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    // SAFETY: SIOCADDRT reads one rtentry.
    match Errno::result(unsafe { libc::ioctl(control.as_raw_fd(), libc::SIOCADDRT as _, &raw const route) }) {
        Ok(_) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno).doing(|| format!("default route by {gateway}")),
    }
}

fn ioctl(control: &OwnedFd, code: libc::c_ulong, request: &libc::ifreq) -> nix::Result<()> {
    // SAFETY: all codes used here read (and may write) one ifreq, and it is only read back by nobody.
    Errno::result(unsafe { libc::ioctl(control.as_raw_fd(), code as _, std::ptr::from_ref(request).cast_mut()) })
        .map(drop)
}

fn request_for(name: &str) -> libc::ifreq {
    // SAFETY: a structure of plain data, for which all zeros is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name = name_bytes(name);
    request
}

fn name_bytes(name: &str) -> [libc::c_char; libc::IFNAMSIZ] {
    let mut bytes = [0; libc::IFNAMSIZ];
    for (target, byte) in bytes.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *target = byte as libc::c_char;
    }
    bytes
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    // SAFETY: plain data.
    let mut generic: libc::sockaddr = unsafe { std::mem::zeroed() };
    generic.sa_family = libc::AF_INET as libc::sa_family_t;
    // sockaddr_in: two bytes of port, then the address in network order.
    for (target, byte) in generic.sa_data[2..6].iter_mut().zip(address.octets()) {
        *target = byte as libc::c_char;
    }
    generic
}

fn parse_address(text: &str) -> Result<Ipv4Addr> {
    text.parse().map_err(|_| invalid(format!("{text:?} is not an IPv4 address")))
}

fn netmask(prefix_length: u8) -> Result<Ipv4Addr> {
    match prefix_length {
        0 => Ok(Ipv4Addr::UNSPECIFIED),
        1..=32 => Ok(Ipv4Addr::from(u32::MAX << (32 - prefix_length))),
        _ => Err(invalid(format!("/{prefix_length} is not a prefix length"))),
    }
}

fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|part| u8::from_str_radix(part, 16))
        .collect::<std::result::Result<_, _>>()
        .unwrap_or_default();
    bytes.try_into().map_err(|_| invalid(format!("{text:?} is not a MAC address")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_masks_and_mac_addresses_are_read() {
        assert_eq!(netmask(24).unwrap(), Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(netmask(0).unwrap(), Ipv4Addr::UNSPECIFIED);
        assert_eq!(netmask(32).unwrap(), Ipv4Addr::BROADCAST);
        assert!(netmask(33).is_err());
        assert_eq!(parse_mac("02:42:ac:11:00:02").unwrap(), [2, 0x42, 0xac, 0x11, 0, 2]);
        assert!(parse_mac("02:42").is_err());
        assert!(parse_address("1.2.3").is_err());
    }

    #[test]
    fn a_socket_address_is_in_network_order() {
        let generic = socket_address(Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(generic.sa_data[..6], [0, 0, 10, 0, 0, 1]);
    }
}
