//! The few requests to the kernel's routing socket that a sandbox needs. Each is one message and its acknowledgement.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io::{Error, ErrorKind, Result};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::RawFd;

/// The routing table that `ip route` shows.
const MAIN_TABLE: u8 = 254;

/// A routing socket of the network namespace that the thread was in when it was opened.
pub struct RouteSocket {
    socket: Socket,
    sequence: u32,
}

impl RouteSocket {
    /// Opens it.
    pub fn open() -> Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Makes a veth pair: the host's end is a port of the bridge and up, the other one is born in the namespace `peer`.
    pub fn create_veth(&mut self, host_name: &str, bridge: u32, mtu: u32, peer: VethPeer<'_>) -> Result<()> {
        let mut inside = LinkMessage::default();
        inside.attributes = vec![
            LinkAttribute::IfName(peer.name.to_owned()),
            LinkAttribute::Address(peer.mac_address.to_vec()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::NetNsFd(peer.namespace),
        ];
        let mut link = LinkMessage::default();
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        link.attributes = vec![
            LinkAttribute::IfName(host_name.to_owned()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::Controller(bridge),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(inside))),
            ]),
        ];
        self.request(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Makes an existing link a port of the bridge, sets its MTU, and brings it up.
    pub fn join_bridge(&mut self, link: u32, bridge: u32, mtu: u32) -> Result<()> {
        let attributes = vec![LinkAttribute::Mtu(mtu), LinkAttribute::Controller(bridge)];
        self.set_up(link, attributes)
    }

    /// Brings a link up.
    pub fn bring_up(&mut self, link: u32) -> Result<()> {
        self.set_up(link, Vec::new())
    }

    fn set_up(&mut self, index: u32, attributes: Vec<LinkAttribute>) -> Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        link.attributes = attributes;
        self.request(RouteNetlinkMessage::SetLink(link), 0)
    }

    /// Gives a link an IPv4 address.
    pub fn add_address(&mut self, link: u32, address: Ipv4Addr, prefix_length: u8) -> Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = prefix_length;
        message.header.index = link;
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix_length)).unwrap_or(0);
        message.attributes = vec![
            AddressAttribute::Local(IpAddr::V4(address)),
            AddressAttribute::Address(IpAddr::V4(address)),
            AddressAttribute::Broadcast(Ipv4Addr::from(u32::from(address) | !mask)),
        ];
        self.request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Adds the default route.
    pub fn add_default_route(&mut self, link: u32, gateway: Ipv4Addr) -> Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = MAIN_TABLE;
        message.header.protocol = RouteProtocol::Boot;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![RouteAttribute::Gateway(IpAddr::V4(gateway).into()), RouteAttribute::Oif(link)];
        self.request(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut buffer = vec![0; packet.buffer_len()];
        packet.serialize(&mut buffer);
        self.socket.send(&buffer, 0)?;
        loop {
            let (answer, _) = self.socket.recv_from_full()?;
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
                .map_err(|cause| Error::new(ErrorKind::InvalidData, cause.to_string()))?;
            if answer.header.sequence_number != self.sequence {
                continue;
            }
            if let NetlinkPayload::Error(outcome) = answer.payload {
                return match outcome.code {
                    None => Ok(()),
                    Some(code) => Err(Error::from_raw_os_error(code.get().abs())),
                };
            }
        }
    }
}

/// The inner end of a veth pair.
pub struct VethPeer<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its hardware address.
    pub mac_address: [u8; 6],
    /// The network namespace it is born in.
    pub namespace: RawFd,
}
