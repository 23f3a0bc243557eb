//! A socket to the kernel's routing tables: one request at a time, every answer checked.

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;

use crate::fault::{BH_ERROR_SYSTEM, Context, Fault, Outcome};

/// A NETLINK_ROUTE socket of the calling thread's network namespace.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    pub fn open() -> Outcome<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE).context("open a socket to", "netlink")?;
        socket.bind_auto().context("bind the socket to", "netlink")?;
        socket.connect(&SocketAddr::new(0, 0)).context("connect to", "netlink")?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends a change and waits for the kernel's word. `flags` are `NLM_F_CREATE` and the like.
    pub fn change(&mut self, request: RouteNetlinkMessage, flags: u16, action: &str, object: &str) -> Outcome<()> {
        self.exchange(request, NLM_F_REQUEST | NLM_F_ACK | flags, action, object).map(|_| ())
    }

    /// Everything of one kind.
    pub fn list(&mut self, request: RouteNetlinkMessage, object: &str) -> Outcome<Vec<RouteNetlinkMessage>> {
        // A table that changes while it is read comes back inconsistent (NLM_F_DUMP_INTR); the kernel's advice is to read again.
        const ATTEMPTS: usize = 4;
        for _ in 1..ATTEMPTS {
            match self.exchange(request.clone(), NLM_F_REQUEST | NLM_F_DUMP, "list", object) {
                Err(fault) if fault.is_errno(Errno::EINTR) => {}
                outcome => return outcome,
            }
        }
        self.exchange(request, NLM_F_REQUEST | NLM_F_DUMP, "list", object)
    }

    fn exchange(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
        action: &str,
        object: &str,
    ) -> Outcome<Vec<RouteNetlinkMessage>> {
        const DUMP_INTERRUPTED: u16 = libc::NLM_F_DUMP_INTR as u16;
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        (header.flags, header.sequence_number) = (flags, self.sequence);
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).context(action, object)?;

        let mut answers = Vec::new();
        let mut interrupted = false;
        loop {
            let (received, _) = self.socket.recv_from_full().context(action, object)?;
            let mut rest = received.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(|error| {
                    Fault::new(BH_ERROR_SYSTEM, object, format!("cannot {action} {object}: netlink answered {error}"))
                })?;
                // Messages are aligned to 4 bytes; a length of 0 cannot be (the header counts).
                let length = (answer.header.length as usize).next_multiple_of(4).clamp(16, rest.len().max(16));
                rest = rest.get(length..).unwrap_or_default();
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                interrupted |= answer.header.flags & DUMP_INTERRUPTED != 0;
                match answer.payload {
                    NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                    NetlinkPayload::Error(error) => match error.code {
                        None => return Ok(answers),
                        Some(code) => return Err(Fault::system(Errno::from_raw(-code.get()), object, action)),
                    },
                    NetlinkPayload::Done(_) if interrupted => return Err(Fault::system(Errno::EINTR, object, action)),
                    NetlinkPayload::Done(_) => return Ok(answers),
                    _ => {}
                }
            }
        }
    }
}
