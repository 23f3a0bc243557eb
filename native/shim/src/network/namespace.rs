//! The network namespace of a sandbox on the host's kernel.

use super::netlink::{RouteSocket, VethPeer};
use super::{bridge_index, network_failure};
use bulkhead_protocol::{Failure, FailureCode, Network};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

/// Makes a network namespace with a loopback interface, and with one end of a veth pair if a network is asked for. The
/// namespace lives as long as the descriptor, and what is in it with it.
pub fn create(network: Option<&Network>) -> Result<OwnedFd, Failure> {
    let plan = network.map(Plan::parse).transpose()?;
    // A thread of its own, because unshare moves the thread that calls it and there is no need to come back.
    std::thread::scope(|scope| scope.spawn(|| create_here(plan.as_ref())).join())
        .unwrap_or_else(|_| Err(Failure::new(FailureCode::Internal, "network: the set-up thread panicked")))
}

struct Plan<'a> {
    network: &'a Network,
    mac_address: [u8; 6],
    address: Ipv4Addr,
    gateway: Option<Ipv4Addr>,
}

impl<'a> Plan<'a> {
    fn parse(network: &'a Network) -> Result<Self, Failure> {
        let invalid = |what: &str, value: &str| {
            Failure::new(FailureCode::InvalidRequest, format!("network: {what} \"{value}\" cannot be read"))
        };
        let ipv4 = |what: &str, value: &str| value.parse::<Ipv4Addr>().map_err(|_| invalid(what, value));
        if network.ipv4_prefix_length > 32 {
            return Err(invalid("prefix length", &network.ipv4_prefix_length.to_string()));
        }
        let gateway = match network.ipv4_gateway.as_str() {
            "" => None,
            gateway => Some(ipv4("gateway", gateway)?),
        };
        Ok(Self {
            network,
            mac_address: parse_mac(&network.mac_address).ok_or_else(|| invalid("MAC", &network.mac_address))?,
            address: ipv4("address", &network.ipv4_address)?,
            gateway,
        })
    }
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        *byte = parts
            .next()
            .filter(|part| part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|part| u8::from_str_radix(part, 16).ok())?;
    }
    parts.next().is_none().then_some(bytes)
}

fn create_here(plan: Option<&Plan<'_>>) -> Result<OwnedFd, Failure> {
    let host = match plan {
        Some(plan) => {
            let socket = RouteSocket::open().map_err(|cause| network_failure("open a routing socket", &cause))?;
            Some((plan, socket, bridge_index(&plan.network.bridge)?))
        }
        None => None,
    };
    unshare(CloneFlags::CLONE_NEWNET).map_err(|cause| network_failure("make a network namespace", &cause))?;
    let namespace =
        File::open("/proc/thread-self/ns/net").map_err(|cause| network_failure("open a namespace", &cause))?;
    let mut inside = RouteSocket::open().map_err(|cause| network_failure("open a routing socket inside", &cause))?;
    let loopback = if_nametoindex("lo").map_err(|cause| network_failure("find lo", &cause))?;
    inside.bring_up(loopback).map_err(|cause| network_failure("bring up lo", &cause))?;
    if let Some((plan, mut host, bridge)) = host {
        let network = plan.network;
        let peer =
            VethPeer { name: &network.interface, mac_address: plan.mac_address, namespace: namespace.as_raw_fd() };
        host.create_veth(&network.host_interface, bridge, network.mtu, peer)
            .map_err(|cause| network_failure(&format!("make veth {}", network.host_interface), &cause))?;
        let name = network.interface.as_str();
        let failed = |what: &'static str| move |cause| network_failure(&format!("{what} {name}"), &cause);
        let link = if_nametoindex(name).map_err(|cause| network_failure(&format!("find {name}"), &cause))?;
        inside.add_address(link, plan.address, network.ipv4_prefix_length).map_err(failed("give an address to"))?;
        inside.bring_up(link).map_err(failed("bring up"))?;
        if let Some(gateway) = plan.gateway {
            inside.add_default_route(link, gateway).map_err(failed("add a default route by"))?;
        }
    }
    Ok(namespace.into())
}

#[cfg(test)]
mod tests {
    use super::parse_mac;

    #[test]
    fn a_mac_address_is_six_pairs_of_hex_digits() {
        assert_eq!(parse_mac("02:42:ac:11:00:02"), Some([0x02, 0x42, 0xac, 0x11, 0, 2]));
        assert_eq!(parse_mac("02:42:ac:11:00"), None);
        assert_eq!(parse_mac("02:42:ac:11:00:02:03"), None);
        assert_eq!(parse_mac("02:42:ac:11:00:+2"), None);
    }
}
