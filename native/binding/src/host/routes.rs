//! The host's addresses and routes, so that a new network's subnet clashes with none of them.

use std::net::IpAddr;

use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};

use super::netlink::Netlink;
use crate::fault::Outcome;

/// A request without fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// An address of one of the host's links.
#[derive(Serialize)]
pub struct HostAddress {
    address: IpAddr,
    prefix_length: u8,
    link_index: u32,
}

/// A route of the main table. The default route has destination 0.0.0.0 or ::, prefix length 0.
#[derive(Serialize)]
pub struct HostRoute {
    destination: IpAddr,
    prefix_length: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    /// 0 for a route without one link, for example `blackhole`.
    link_index: u32,
}

/// What the host occupies.
#[derive(Serialize)]
pub struct HostRoutes {
    addresses: Vec<HostAddress>,
    routes: Vec<HostRoute>,
}

fn ip_address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn parse_address(message: &AddressMessage) -> Option<HostAddress> {
    // IFA_LOCAL is the host's own; IFA_ADDRESS is the peer's on a point-to-point link, and the only one in IPv6.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let any = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    let address = local.or(any)?;
    Some(HostAddress { address, prefix_length: message.header.prefix_len, link_index: message.header.index })
}

fn parse_route(message: &RouteMessage) -> Option<HostRoute> {
    let mut table = u32::from(message.header.table);
    let mut destination = match message.header.address_family {
        AddressFamily::Inet => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let (mut gateway, mut link_index) = (None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip_address(address)?,
            RouteAttribute::Gateway(address) => gateway = ip_address(address),
            RouteAttribute::Oif(index) => link_index = *index,
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    let prefix_length = message.header.destination_prefix_length;
    (table == u32::from(RouteHeader::RT_TABLE_MAIN)).then_some(HostRoute {
        destination,
        prefix_length,
        gateway,
        link_index,
    })
}

/// All addresses, and the routes of the main table.
pub fn list_routes(_request: Nothing) -> Outcome<HostRoutes> {
    let mut netlink = Netlink::open()?;
    let addresses = netlink.list(RouteNetlinkMessage::GetAddress(AddressMessage::default()), "the addresses")?;
    let routes = netlink.list(RouteNetlinkMessage::GetRoute(RouteMessage::default()), "the routes")?;
    Ok(HostRoutes {
        addresses: addresses
            .iter()
            .filter_map(|answer| {
                if let RouteNetlinkMessage::NewAddress(address) = answer { parse_address(address) } else { None }
            })
            .collect(),
        routes: routes
            .iter()
            .filter_map(
                |answer| if let RouteNetlinkMessage::NewRoute(route) = answer { parse_route(route) } else { None },
            )
            .collect(),
    })
}
