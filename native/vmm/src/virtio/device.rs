//! What a virtio device is to its transport, and the loop over a queue that all of them share.

use crate::memory::GuestRam;
use crate::virtio::buffers::Chain;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vmm_sys_util::eventfd::EventFd;

/// Chains that one turn takes at most: the thread has other devices, and commands.
const TURN_CHAINS_MAX: usize = 1024;

/// A queue that makes no sense: the device stops until the driver resets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(pub String);

impl From<virtio_queue::Error> for Broken {
    fn from(cause: virtio_queue::Error) -> Self {
        Self(cause.to_string())
    }
}

/// What there is to do for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// The driver put something into this queue.
    Queue(usize),
    /// This one of the device's own descriptors is ready (edge-triggered).
    Source(usize),
}

/// What a device is told from outside while it runs.
#[derive(Debug)]
pub enum Control {
    /// Read the size of the disk's file again.
    Resize,
    /// Put this in the disk's place.
    Attach(crate::virtio::block_backend::Backend),
    /// The host's new end of a console port.
    Connect {
        /// The port's name.
        port: String,
        /// A connected stream socket.
        stream: std::os::fd::OwnedFd,
    },
    /// New limits, in bytes and operations a second; 0 is none.
    Limit {
        /// Bytes a second.
        bytes: u64,
        /// Operations a second.
        operations: u64,
    },
}

/// What a control changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// The driver must read the configuration space again.
    pub configuration: bool,
    /// Every queue should be looked at, and the descriptors registered anew.
    pub sources: bool,
}

/// The interrupt of a device.
#[derive(Debug)]
pub struct Interrupt {
    status: AtomicU32,
    event: EventFd,
}

/// Bits of the interrupt status (§4.2.2).
const USED_BUFFERS: u32 = 1;
const CONFIGURATION: u32 = 2;

impl Interrupt {
    /// An interrupt that is raised by this descriptor.
    pub fn new(event: EventFd) -> Self {
        Self { status: AtomicU32::new(0), event }
    }

    /// A queue has used buffers.
    pub fn tell_used(&self) {
        self.raise(USED_BUFFERS);
    }

    /// The configuration space changed.
    pub fn tell_configuration(&self) {
        self.raise(CONFIGURATION);
    }

    /// Raises it again, for a machine that was restored between the two.
    pub fn repeat(&self) {
        if self.status() != 0 {
            let _ = self.event.write(1);
        }
    }

    /// What was not acknowledged.
    pub fn status(&self) -> u32 {
        self.status.load(Ordering::Acquire)
    }

    /// As after a restore or reset.
    pub fn set_status(&self, status: u32) {
        self.status.store(status, Ordering::Release);
    }

    /// The driver has seen these.
    pub fn acknowledge(&self, bits: u32) {
        self.status.fetch_and(!bits, Ordering::AcqRel);
    }

    fn raise(&self, bit: u32) {
        self.status.fetch_or(bit, Ordering::AcqRel);
        // It only fails where the counter is full: then the interrupt is raised already.
        let _ = self.event.write(1);
    }
}

/// What a device works with while its driver runs.
pub struct Active<'a> {
    /// Its queues.
    pub queues: &'a mut [Queue],
    /// Each queue's notification, to come back to it later.
    pub events: &'a [EventFd],
    /// The guest's memory.
    pub ram: &'a GuestRam,
    /// Its interrupt.
    pub interrupt: &'a Interrupt,
}

/// What became of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Done; this many bytes were written to it.
    Used(u32),
    /// Not now: it stays in the queue.
    Later,
}

impl<'a> Active<'a> {
    /// Whether the driver made this queue.
    pub fn has_queue(&self, index: usize) -> bool {
        self.queues.get(index).is_some_and(|queue| queue.ready())
    }

    /// Takes chains from a queue until there are none, or one is to come later.
    pub fn drain(&mut self, index: usize, mut handle: impl FnMut(Chain<'a>) -> Step) -> Result<(), Broken> {
        let ram = self.ram;
        let Some(queue) = self.queues.get_mut(index).filter(|queue| queue.ready()) else { return Ok(()) };
        let (mut used, mut budget) = (false, TURN_CHAINS_MAX);
        let mut stop = false;
        while !stop {
            queue.disable_notification(ram)?;
            while let Some(chain) = queue.iter(ram)?.next() {
                let head = chain.head_index();
                match handle(chain) {
                    Step::Used(bytes) => {
                        queue.add_used(ram, head, bytes)?;
                        used = true;
                    }
                    Step::Later => {
                        queue.go_to_previous_position();
                        stop = true;
                        break;
                    }
                }
                budget -= 1;
                if budget == 0 {
                    let _ = self.events[index].write(1);
                    stop = true;
                    break;
                }
            }
            // What came since the last look is taken too, unless it has to wait.
            if !queue.enable_notification(ram)? {
                break;
            }
        }
        if used && queue.needs_notification(ram)? {
            self.interrupt.tell_used();
        }
        Ok(())
    }

    /// Gives one buffer of a queue to the driver, if it has put one there.
    pub fn answer(&mut self, index: usize, bytes: &[u8]) -> Result<bool, Broken> {
        let ram = self.ram;
        let Some(queue) = self.queues.get_mut(index).filter(|queue| queue.ready()) else { return Ok(false) };
        let chain = loop {
            if let Some(chain) = queue.iter(ram)?.next() {
                break chain;
            }
            // One that came while nobody was to be told is taken now.
            if !queue.enable_notification(ram)? {
                return Ok(false);
            }
        };
        let head = chain.head_index();
        let count =
            crate::virtio::buffers::Buffers::parse(chain, ram).map_or(0, |buffers| buffers.writable.copy_from(bytes));
        queue.add_used(ram, head, count as u32)?;
        if queue.needs_notification(ram)? {
            self.interrupt.tell_used();
        }
        Ok(true)
    }
}

/// A device behind a transport.
pub trait VirtioDevice: Send {
    /// Virtio device id.
    fn kind(&self) -> u32;
    /// Largest size of each queue.
    fn queue_sizes(&self) -> &[u16];
    /// Feature bits on offer, with [`crate::virtio::feature::COMMON`].
    fn features(&self) -> u64;
    /// Reads the configuration space; what is beyond it is 0.
    fn read_config(&self, offset: usize, data: &mut [u8]);
    /// Writes it.
    fn write_config(&mut self, _offset: usize, _data: &[u8]) {}
    /// The driver runs, with these features.
    fn activate(&mut self, features: u64);
    /// The driver is gone.
    fn reset(&mut self);
    /// Does what there is to do.
    fn process(&mut self, work: Work, active: &mut Active<'_>) -> Result<(), Broken>;
    /// Descriptors whose readiness is work; by their place they are [`Work::Source`].
    fn sources(&self) -> Vec<RawFd> {
        Vec::new()
    }
    /// Does what it is told from outside.
    fn control(&mut self, _control: Control) -> Result<Changed, String> {
        Err("this device has nothing to change".into())
    }
    /// What there is to tell of it, for a monitor.
    fn describe(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
    /// Its own state.
    fn save(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
    /// Takes it back.
    fn restore(&mut self, _state: serde_json::Value) -> Result<(), String> {
        Ok(())
    }
}

/// Copies a part of a configuration space that is `bytes`.
pub fn read_config_bytes(bytes: &[u8], offset: usize, data: &mut [u8]) {
    data.fill(0);
    if let Some(rest) = bytes.get(offset..) {
        let count = rest.len().min(data.len());
        data[..count].copy_from_slice(&rest[..count]);
    }
}
