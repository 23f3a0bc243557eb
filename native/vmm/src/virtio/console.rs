//! Console with several ports (§5.3): byte streams with names, each a connected socket on the host's side.
//!
//! Port 0 is reserved for a console that a guest kernel would open itself, and is not there. A port's bytes wait in the host's socket
//! until the guest has opened it: Linux drops what comes before.

use crate::virtio::buffers::Buffers;
use crate::virtio::console_stream::{ControlMessage, Received, event, make_nonblocking, receive_once, send};
use crate::virtio::device::{Active, Broken, Changed, Control, Step, VirtioDevice, Work, read_config_bytes};
use crate::virtio::{feature, kind};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use vmm_sys_util::eventfd::EventFd;

const FEATURE_MULTIPORT: u64 = 1 << 1;
const QUEUE_SIZE: u16 = 128;
const CONTROL_RECEIVE: usize = 2;
const CONTROL_TRANSMIT: usize = 3;
/// Most ports, with the one that is reserved.
const PORTS_MAX: usize = 9;
/// Messages that wait for the driver; one that makes more is not a driver.
const MESSAGES_MAX: usize = 256;
/// Reads or writes of one turn.
const TURN_READS_MAX: usize = 64;
/// A port's name.
const NAME_BYTES_MAX: usize = 64;

/// A port.
#[derive(Debug)]
struct Port {
    name: String,
    stream: Option<OwnedFd>,
    state: PortState,
}

/// What of a port is saved.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortState {
    /// The driver has it.
    ready: bool,
    /// A process of the guest has it open.
    guest_open: bool,
    /// The guest was told that the host has it open.
    host_open: bool,
    /// Bytes of the first buffer in the transmit queue that went out already.
    sent_bytes: usize,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Saved {
    ports: Vec<PortState>,
    messages: Vec<Vec<u8>>,
}

/// The device.
#[derive(Debug)]
pub struct Console {
    ports: Vec<Port>,
    queue_sizes: Vec<u16>,
    /// Written when the guest opens or closes a port.
    changes: Arc<EventFd>,
    messages: VecDeque<Vec<u8>>,
}

/// Number of a port in messages: the first is 1.
fn port_id(index: usize) -> u32 {
    index as u32 + 1
}

/// Queue from which the driver takes a port's bytes; the one after it is for the other way (§5.3.2).
fn receive_queue(index: usize) -> usize {
    4 + 2 * index
}

impl Console {
    /// A console with these ports: name, and the host's end if it is there. `changes` is written when the guest opens or closes one.
    pub fn new(ports: Vec<(String, Option<OwnedFd>)>, changes: Arc<EventFd>) -> Result<Self, String> {
        if ports.len() >= PORTS_MAX {
            return Err(format!("{} ports; {} is the most", ports.len(), PORTS_MAX - 1));
        }
        let queue_sizes = vec![QUEUE_SIZE; 4 + 2 * ports.len()];
        let ports = ports
            .into_iter()
            .map(|(name, stream)| {
                if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
                    return Err(format!("a port cannot be named {name:?}"));
                }
                if let Some(stream) = &stream {
                    make_nonblocking(stream).map_err(|cause| format!("port {name}: {cause}"))?;
                }
                Ok(Port { name, stream, state: PortState::default() })
            })
            .collect::<Result<_, String>>()?;
        Ok(Self { ports, queue_sizes, changes, messages: VecDeque::new() })
    }

    fn say(&mut self, id: u32, event: u16, value: u16) {
        self.push(ControlMessage { id, event, value }.bytes());
    }

    fn push(&mut self, message: Vec<u8>) {
        if self.messages.len() < MESSAGES_MAX {
            self.messages.push_back(message);
        }
    }

    fn obey(&mut self, message: ControlMessage) {
        if message.event == event::DEVICE_READY {
            if message.value == 1 {
                for index in 0..self.ports.len() {
                    self.say(port_id(index), event::PORT_ADD, 1);
                }
            }
            return;
        }
        let index = (message.id as usize).wrapping_sub(1);
        let Some(port) = self.ports.get_mut(index) else { return };
        match message.event {
            event::PORT_READY if message.value == 1 => {
                port.state.ready = true;
                let open = port.stream.is_some();
                port.state.host_open = open;
                let mut name = ControlMessage { id: message.id, event: event::PORT_NAME, value: 1 }.bytes();
                name.extend_from_slice(port.name.as_bytes());
                self.push(name);
                if open {
                    self.say(message.id, event::PORT_OPEN, 1);
                }
            }
            event::PORT_OPEN => {
                port.state.guest_open = message.value == 1;
                let _ = self.changes.write(1);
            }
            _ => {}
        }
    }

    fn process_control(&mut self, active: &mut Active<'_>) -> Result<(), Broken> {
        let ram = active.ram;
        active.drain(CONTROL_TRANSMIT, |chain| {
            let mut bytes = [0; 8];
            if let Ok(buffers) = Buffers::parse(chain, ram)
                && buffers.readable.copy_to(&mut bytes) == bytes.len()
            {
                self.obey(ControlMessage::parse(bytes));
            }
            Step::Used(0)
        })?;
        self.send_messages(active)?;
        // A port that was opened just now may have bytes waiting.
        for index in 0..self.ports.len() {
            self.receive(index, active)?;
        }
        Ok(())
    }

    fn send_messages(&mut self, active: &mut Active<'_>) -> Result<(), Broken> {
        while let Some(message) = self.messages.front() {
            if !active.answer(CONTROL_RECEIVE, message)? {
                break;
            }
            self.messages.pop_front();
        }
        Ok(())
    }

    /// The host closed its end: the guest sees a hang-up.
    fn hang_up(&mut self, index: usize, active: &mut Active<'_>) -> Result<(), Broken> {
        let port = &mut self.ports[index];
        port.stream = None;
        if std::mem::take(&mut port.state.host_open) {
            self.say(port_id(index), event::PORT_OPEN, 0);
        }
        self.send_messages(active)?;
        // What the guest still writes is dropped.
        self.transmit(index, active)
    }

    /// Host to guest.
    fn receive(&mut self, index: usize, active: &mut Active<'_>) -> Result<(), Broken> {
        let queue = receive_queue(index);
        if !active.has_queue(queue) {
            return Ok(());
        }
        for turn in 0.. {
            let port = &self.ports[index];
            let Some(stream) = port.stream.as_ref().filter(|_| port.state.guest_open) else { break };
            if turn == TURN_READS_MAX {
                let _ = active.events[queue].write(1);
                break;
            }
            match receive_once(stream, queue, active)? {
                Received::Bytes => {}
                Received::Nothing => break,
                Received::End => return self.hang_up(index, active),
            }
        }
        Ok(())
    }

    /// Guest to host.
    fn transmit(&mut self, index: usize, active: &mut Active<'_>) -> Result<(), Broken> {
        let ram = active.ram;
        let port = &mut self.ports[index];
        let mut broken = false;
        active.drain(receive_queue(index) + 1, |chain| {
            let Ok(buffers) = Buffers::parse(chain, ram) else { return Step::Used(0) };
            while let Some(stream) = port.stream.as_ref().filter(|_| !broken) {
                let rest = buffers.readable.range(port.state.sent_bytes, usize::MAX);
                if rest.is_empty() {
                    break;
                }
                match send(stream, &rest) {
                    Ok(count) => port.state.sent_bytes += count,
                    Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => return Step::Later,
                    Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => broken = true,
                }
            }
            port.state.sent_bytes = 0;
            Step::Used(0)
        })?;
        if broken { self.hang_up(index, active) } else { Ok(()) }
    }
}

impl VirtioDevice for Console {
    fn kind(&self) -> u32 {
        kind::CONSOLE
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn features(&self) -> u64 {
        feature::COMMON | FEATURE_MULTIPORT
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        // cols, rows, max_nr_ports, emerg_wr.
        let mut config = [0; 12];
        config[4..8].copy_from_slice(&(self.ports.len() as u32 + 1).to_le_bytes());
        read_config_bytes(&config, offset, data);
    }

    fn activate(&mut self, _features: u64) {}

    fn reset(&mut self) {
        self.messages.clear();
        for port in &mut self.ports {
            port.state = PortState::default();
        }
    }

    fn process(&mut self, work: Work, active: &mut Active<'_>) -> Result<(), Broken> {
        match work {
            Work::Queue(CONTROL_TRANSMIT) => self.process_control(active),
            Work::Queue(CONTROL_RECEIVE) => self.send_messages(active),
            // Those of the reserved port.
            Work::Queue(0 | 1) => Ok(()),
            Work::Queue(queue) => {
                let index = (queue - 4) / 2;
                if queue % 2 == 0 { self.receive(index, active) } else { self.transmit(index, active) }
            }
            Work::Source(source) => {
                if source >= self.ports.len() {
                    return Ok(());
                }
                self.transmit(source, active)?;
                self.receive(source, active)
            }
        }
    }

    fn sources(&self) -> Vec<RawFd> {
        self.ports.iter().map(|port| port.stream.as_ref().map_or(-1, AsRawFd::as_raw_fd)).collect()
    }

    fn control(&mut self, control: Control) -> Result<Changed, String> {
        let Control::Connect { port: name, stream } = control else {
            return Err("a console has ports to connect, nothing else".into());
        };
        let index = self.ports.iter().position(|port| port.name == name).ok_or_else(|| format!("no port {name}"))?;
        make_nonblocking(&stream).map_err(|cause| cause.to_string())?;
        let port = &mut self.ports[index];
        let (ready, was_open) = (port.state.ready, port.state.host_open);
        port.stream = Some(stream);
        port.state.host_open = ready;
        if ready && was_open {
            self.say(port_id(index), event::PORT_OPEN, 0);
        }
        if ready {
            self.say(port_id(index), event::PORT_OPEN, 1);
        }
        Ok(Changed { configuration: false, sources: true })
    }

    fn describe(&self) -> serde_json::Value {
        let ports = self.ports.iter().map(|port| {
            let state = port.state;
            serde_json::json!({ "name": port.name, "guestOpen": state.guest_open, "hostOpen": port.stream.is_some() })
        });
        serde_json::json!({ "ports": ports.collect::<Vec<_>>() })
    }

    fn save(&self) -> serde_json::Value {
        let saved = Saved {
            ports: self.ports.iter().map(|port| port.state).collect(),
            messages: self.messages.iter().cloned().collect(),
        };
        serde_json::to_value(saved).unwrap_or_default()
    }

    fn restore(&mut self, state: serde_json::Value) -> Result<(), String> {
        let saved: Saved = serde_json::from_value(state).map_err(|cause| cause.to_string())?;
        if saved.ports.len() != self.ports.len() || saved.messages.len() > MESSAGES_MAX {
            return Err("its ports are not those of the saved machine".into());
        }
        self.messages = saved.messages.into();
        for (index, state) in saved.ports.into_iter().enumerate() {
            let connected = self.ports[index].stream.is_some();
            self.ports[index].state = state;
            // The guest learns what is different from what it was told.
            if state.ready && state.host_open != connected {
                self.ports[index].state.host_open = connected;
                self.say(port_id(index), event::PORT_OPEN, connected.into());
            }
        }
        Ok(())
    }
}
