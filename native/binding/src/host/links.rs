//! Bridges, and the host's links.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    BridgeStpState, InfoBridge, InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::netlink::Netlink;
use crate::fault::{Context, Fault, Outcome};

/// An IPv4 address with the length of its network's prefix.
#[derive(Deserialize, Clone, Copy)]
pub struct InterfaceAddress {
    address: Ipv4Addr,
    prefix_length: u8,
}

/// A bridge as it should be.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BridgeSpec {
    name: String,
    /// The host's own address on the bridge, its only IPv4 one; none for a network without the host.
    address: Option<InterfaceAddress>,
    mtu_bytes: u32,
}

/// What `ensure_bridge` found or made.
#[derive(Serialize)]
pub struct BridgeState {
    index: u32,
    created: bool,
    hardware_address: String,
}

/// A link of the host.
#[derive(Serialize)]
pub struct Link {
    name: String,
    index: u32,
    /// `bridge`, `tun`, `veth` …; empty for a physical one.
    kind: String,
    up: bool,
    mtu_bytes: u32,
    hardware_address: String,
    /// Index of the bridge that the link is a port of; 0 for none.
    bridge_index: u32,
}

/// Which link.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkName {
    name: String,
}

/// Which links.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkPrefix {
    name_prefix: String,
}

/// Whether there was anything to delete.
#[derive(Serialize)]
pub struct Deleted {
    deleted: bool,
}

/// Whether the host forwarded before.
#[derive(Serialize)]
pub struct Forwarding {
    was_enabled: bool,
}

/// Most bytes of a link's name: IFNAMSIZ without the zero.
const NAME_LIMIT_BYTES: usize = 15;

fn check_name(name: &str) -> Outcome<()> {
    let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
    if name.is_empty() || name.len() > NAME_LIMIT_BYTES || name == "." || name == ".." || !name.bytes().all(allowed) {
        let message = format!(
            "link name {name:?} is not usable: 1 to {NAME_LIMIT_BYTES} visible ASCII characters without / and :"
        );
        return Err(Fault::invalid(name, message));
    }
    Ok(())
}

/// Addresses of a bridge follow its ports unless one is set; set from the name, it also survives the bridge.
fn stable_hardware_address(name: &str) -> Vec<u8> {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    // 0x02: locally administered, unicast.
    std::iter::once(0x02).chain(hash.to_be_bytes().into_iter().take(5)).collect()
}

fn format_hardware_address(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

fn parse_link(message: LinkMessage) -> Link {
    let mut link = Link {
        name: String::new(),
        index: message.header.index,
        kind: String::new(),
        up: message.header.flags.contains(LinkFlags::Up),
        mtu_bytes: 0,
        hardware_address: String::new(),
        bridge_index: 0,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu_bytes = mtu,
            LinkAttribute::Address(bytes) => link.hardware_address = format_hardware_address(&bytes),
            LinkAttribute::Controller(index) => link.bridge_index = index,
            LinkAttribute::LinkInfo(infos) => {
                let kind =
                    infos.into_iter().find_map(|info| if let LinkInfo::Kind(kind) = info { Some(kind) } else { None });
                link.kind = kind.map(|kind| kind.to_string()).unwrap_or_default();
            }
            _ => {}
        }
    }
    link
}

fn all_links(netlink: &mut Netlink) -> Outcome<Vec<Link>> {
    let answers = netlink.list(RouteNetlinkMessage::GetLink(LinkMessage::default()), "the links")?;
    Ok(answers
        .into_iter()
        .filter_map(
            |answer| if let RouteNetlinkMessage::NewLink(link) = answer { Some(parse_link(link)) } else { None },
        )
        .collect())
}

fn find_link(netlink: &mut Netlink, name: &str) -> Outcome<Option<Link>> {
    Ok(all_links(netlink)?.into_iter().find(|link| link.name == name))
}

fn create_bridge(netlink: &mut Netlink, name: &str) -> Outcome<()> {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Address(stable_hardware_address(name)),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::StpState(BridgeStpState::Disabled)])),
        ]),
    ];
    netlink.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, "create bridge", name)
}

fn configure_bridge(netlink: &mut Netlink, index: u32, spec: &BridgeSpec) -> Outcome<()> {
    let mut stp = LinkMessage::default();
    stp.header.index = index;
    stp.attributes = vec![LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Bridge),
        LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::StpState(BridgeStpState::Disabled)])),
    ])];
    netlink.change(RouteNetlinkMessage::NewLink(stp), 0, "turn off spanning tree on bridge", &spec.name)?;
    let mut up = LinkMessage::default();
    up.header.index = index;
    (up.header.flags, up.header.change_mask) = (LinkFlags::Up, LinkFlags::Up);
    up.attributes = vec![LinkAttribute::Mtu(spec.mtu_bytes)];
    netlink.change(RouteNetlinkMessage::SetLink(up), 0, "set up bridge", &spec.name)
}

fn address_message(index: u32, wanted: InterfaceAddress) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = wanted.prefix_length;
    message.header.index = index;
    let address = IpAddr::V4(wanted.address);
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    if wanted.prefix_length < 31 {
        let host_bits = u32::MAX.checked_shr(wanted.prefix_length.into()).unwrap_or(0);
        message.attributes.push(AddressAttribute::Broadcast(Ipv4Addr::from_bits(wanted.address.to_bits() | host_bits)));
    }
    message
}

/// The bridge has exactly the wanted IPv4 address.
fn align_addresses(netlink: &mut Netlink, index: u32, spec: &BridgeSpec) -> Outcome<()> {
    let mut request = AddressMessage::default();
    request.header.family = AddressFamily::Inet;
    let present = netlink.list(RouteNetlinkMessage::GetAddress(request), "the addresses")?;
    for answer in present {
        let RouteNetlinkMessage::NewAddress(address) = answer else { continue };
        if address.header.index != index {
            continue;
        }
        let local = address.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(local)) => Some(*local),
            _ => None,
        });
        let wanted = spec
            .address
            .is_some_and(|wanted| local == Some(wanted.address) && address.header.prefix_len == wanted.prefix_length);
        if !wanted {
            netlink.change(RouteNetlinkMessage::DelAddress(address), 0, "remove an address of bridge", &spec.name)?;
        }
    }
    let Some(wanted) = spec.address else { return Ok(()) };
    let message = RouteNetlinkMessage::NewAddress(address_message(index, wanted));
    netlink.change(message, NLM_F_CREATE | NLM_F_REPLACE, "set the address of bridge", &spec.name)
}

/// Makes the bridge be as wanted, whatever it was: up, without spanning tree, with this MTU and this one IPv4 address.
pub fn ensure_bridge(spec: BridgeSpec) -> Outcome<BridgeState> {
    check_name(&spec.name)?;
    if !(68..=65535).contains(&spec.mtu_bytes) {
        return Err(Fault::invalid(
            &spec.name,
            format!("MTU {} of bridge {} is not within 68 to 65535", spec.mtu_bytes, spec.name),
        ));
    }
    if spec.address.is_some_and(|wanted| !(1..=32).contains(&wanted.prefix_length)) {
        return Err(Fault::invalid(
            &spec.name,
            format!("the prefix length of bridge {} is not within 1 to 32", spec.name),
        ));
    }
    let mut netlink = Netlink::open()?;
    let mut created = false;
    let found = match find_link(&mut netlink, &spec.name)? {
        Some(link) => Some(link),
        None => {
            match create_bridge(&mut netlink, &spec.name) {
                // Another call made it meanwhile.
                Err(fault) if fault.is_errno(Errno::EEXIST) => {}
                outcome => {
                    outcome?;
                    created = true;
                }
            }
            find_link(&mut netlink, &spec.name)?
        }
    };
    let link = found.ok_or_else(|| Fault::system(Errno::ENODEV, &spec.name, "find bridge"))?;
    if link.kind != "bridge" {
        let message = format!("link {} exists and is no bridge: choose another name or delete it", spec.name);
        return Err(Fault { message, ..Fault::system(Errno::EEXIST, &spec.name, "create bridge") });
    }
    let configured = configure_bridge(&mut netlink, link.index, &spec)
        .and_then(|()| align_addresses(&mut netlink, link.index, &spec));
    if let Err(fault) = configured {
        if created {
            let _ = delete_link(LinkName { name: spec.name });
        }
        return Err(fault);
    }
    Ok(BridgeState { index: link.index, created, hardware_address: link.hardware_address })
}

/// Deletes a link of any kind; it need not exist.
pub fn delete_link(link: LinkName) -> Outcome<Deleted> {
    check_name(&link.name)?;
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(link.name.clone())];
    match Netlink::open()?.change(RouteNetlinkMessage::DelLink(message), 0, "delete link", &link.name) {
        Err(fault) if fault.is_errno(Errno::ENODEV) => Ok(Deleted { deleted: false }),
        outcome => outcome.map(|()| Deleted { deleted: true }),
    }
}

/// The links whose name starts so.
pub fn list_links(wanted: LinkPrefix) -> Outcome<Vec<Link>> {
    let mut links = all_links(&mut Netlink::open()?)?;
    links.retain(|link| link.name.starts_with(&wanted.name_prefix));
    Ok(links)
}

/// Lets the host forward IPv4 between its links.
pub fn enable_forwarding(_request: super::routes::Nothing) -> Outcome<Forwarding> {
    const PATH: &str = "/proc/sys/net/ipv4/ip_forward";
    let before = std::fs::read_to_string(PATH).context("read", PATH)?;
    let was_enabled = before.trim() == "1";
    if !was_enabled {
        std::fs::write(PATH, "1\n").context("enable IPv4 forwarding in", PATH)?;
    }
    Ok(Forwarding { was_enabled })
}
