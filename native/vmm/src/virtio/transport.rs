//! The MMIO transport (§4.2): registers between a driver and a device.

use crate::error::{Error, Result};
use crate::memory::GuestRam;
use crate::virtio::device::{Active, Broken, Changed, Control, Interrupt, VirtioDevice, Work};
use crate::virtio::feature;
use serde::{Deserialize, Serialize};
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use virtio_queue::{Queue, QueueState, QueueT};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
const VENDOR: u32 = u32::from_le_bytes(*b"BHVM");
const CONFIGURATION_SPACE: u64 = 0x100;

/// Device status bits (§2.1).
mod status {
    pub const ACKNOWLEDGE: u32 = 1;
    pub const DRIVER: u32 = 2;
    pub const DRIVER_OK: u32 = 4;
    pub const FEATURES_OK: u32 = 8;
    pub const NEEDS_RESET: u32 = 64;
    pub const FAILED: u32 = 128;
}

/// Registers that a driver sets.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Registers {
    status: u32,
    device_features_page: u32,
    driver_features_page: u32,
    driver_features: u64,
    queue: u32,
    generation: u32,
}

/// A queue's place and position.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct SavedQueue {
    size: u16,
    ready: bool,
    descriptors: u64,
    available: u64,
    used: u64,
    next_available: u16,
    next_used: u16,
}

/// A transport's part of a saved state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TransportState {
    registers: Registers,
    interrupt: u32,
    active: bool,
    queues: Vec<SavedQueue>,
}

struct Inner {
    device: Box<dyn VirtioDevice>,
    queues: Vec<Queue>,
    registers: Registers,
    active: bool,
    broken: Option<String>,
}

/// A device at its place in the machine.
pub struct Transport {
    /// Its name in messages.
    pub name: String,
    /// Each queue's notification.
    pub events: Vec<EventFd>,
    interrupt: Interrupt,
    ram: Arc<GuestRam>,
    inner: Mutex<Inner>,
}

fn new_queues(sizes: &[u16]) -> Result<Vec<Queue>> {
    sizes.iter().map(|&size| Queue::new(size).map_err(|cause| Error::Config(cause.to_string()))).collect()
}

impl Transport {
    /// A device and its registers; `interrupt` raises its interrupt.
    pub fn new(name: String, device: Box<dyn VirtioDevice>, ram: Arc<GuestRam>, interrupt: EventFd) -> Result<Self> {
        let queues = new_queues(device.queue_sizes())?;
        let events = queues
            .iter()
            .map(|_| EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map_err(|cause| Error::system("eventfd", cause)))
            .collect::<Result<_>>()?;
        let inner = Inner { device, queues, registers: Registers::default(), active: false, broken: None };
        Ok(Self { name, events, interrupt: Interrupt::new(interrupt), ram, inner: Mutex::new(inner) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Virtio device id.
    pub fn kind(&self) -> u32 {
        self.inner().device.kind()
    }

    /// Descriptors whose readiness is work of the device.
    pub fn sources(&self) -> Vec<RawFd> {
        self.inner().device.sources()
    }

    /// What there is to tell of the device: its name, why it stopped if it did, and what it says itself.
    pub fn describe(&self) -> serde_json::Value {
        let inner = self.inner();
        let queues = inner.queues.iter().filter(|queue| queue.ready()).map(|queue| {
            let available = queue.avail_idx(&*self.ram, std::sync::atomic::Ordering::Acquire);
            serde_json::json!({
                "offered": available.map_or(0, |index| index.0),
                "taken": queue.next_avail(),
                "used": queue.next_used(),
            })
        });
        serde_json::json!({
            "name": self.name,
            "active": inner.active,
            "interruptStatus": self.interrupt.status(),
            "queues": queues.collect::<Vec<_>>(),
            "broken": inner.broken,
            "own": inner.device.describe(),
        })
    }

    /// Does work of the device, if its driver runs.
    pub fn process(&self, work: Work) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        if !inner.active {
            return;
        }
        let mut active =
            Active { queues: &mut inner.queues, events: &self.events, ram: &self.ram, interrupt: &self.interrupt };
        if let Err(broken) = inner.device.process(work, &mut active) {
            self.stop(inner, &broken);
        }
    }

    /// Looks at every queue and source: after a restore, for notifications that the machine before took with it.
    pub fn process_everything(&self) {
        self.interrupt.repeat();
        let sources = self.sources().len();
        for work in (0..self.events.len()).map(Work::Queue).chain((0..sources).map(Work::Source)) {
            self.process(work);
        }
    }

    fn stop(&self, inner: &mut Inner, broken: &Broken) {
        inner.active = false;
        inner.broken = Some(broken.0.clone());
        inner.registers.status |= status::NEEDS_RESET;
        self.interrupt.tell_configuration();
    }

    /// Tells the device something from outside.
    pub fn control(&self, control: Control) -> Result<Changed> {
        let mut inner = self.inner();
        let changed = inner.device.control(control).map_err(|reason| Error::device(&self.name, reason))?;
        if changed.configuration {
            inner.registers.generation = inner.registers.generation.wrapping_add(1);
            if inner.active {
                self.interrupt.tell_configuration();
            }
        }
        Ok(changed)
    }

    /// A driver's read.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        // Read at each interrupt: it must not wait for a disk.
        if offset == 0x60
            && let Ok(word) = <&mut [u8; 4]>::try_from(&mut *data)
        {
            *word = self.interrupt.status().to_le_bytes();
            return;
        }
        let inner = self.inner();
        if let Some(offset) = offset.checked_sub(CONFIGURATION_SPACE) {
            inner.device.read_config(usize::try_from(offset).unwrap_or(usize::MAX), data);
            return;
        }
        let Ok(word) = <&mut [u8; 4]>::try_from(data) else { return };
        let registers = &inner.registers;
        let queue = inner.queues.get(registers.queue as usize);
        let value = match offset {
            0x00 => MAGIC,
            0x04 => VERSION,
            0x08 => inner.device.kind(),
            0x0c => VENDOR,
            0x10 => match registers.device_features_page {
                0 => inner.device.features() as u32,
                1 => (inner.device.features() >> 32) as u32,
                _ => 0,
            },
            0x34 => queue.map_or(0, |queue| queue.max_size().into()),
            0x44 => queue.map_or(0, |queue| queue.ready().into()),
            0x70 => registers.status,
            // No shared memory: a length of -1 (§4.2.2).
            0xb0 | 0xb4 | 0xb8 | 0xbc => u32::MAX,
            0xfc => registers.generation,
            _ => 0,
        };
        *word = value.to_le_bytes();
    }

    /// A driver's write.
    pub fn write(&self, offset: u64, data: &[u8]) {
        if let Some(offset) = offset.checked_sub(CONFIGURATION_SPACE) {
            self.inner().device.write_config(usize::try_from(offset).unwrap_or(usize::MAX), data);
            return;
        }
        let Ok(word) = <[u8; 4]>::try_from(data) else { return };
        let value = u32::from_le_bytes(word);
        if offset == 0x64 {
            self.interrupt.acknowledge(value);
            return;
        }
        let mut inner = self.inner();
        let inner = &mut *inner;
        match offset {
            0x14 => inner.registers.device_features_page = value,
            0x20 => self.accept_features(inner, value),
            0x24 => inner.registers.driver_features_page = value,
            0x30 => inner.registers.queue = value,
            0x70 => self.set_status(inner, value),
            // Normally an ioeventfd; a queue that there is none of.
            0x50 => {
                if let Some(event) = self.events.get(value as usize) {
                    let _ = event.write(1);
                }
            }
            _ => configure_queue(inner, offset, value),
        }
    }

    fn accept_features(&self, inner: &mut Inner, value: u32) {
        let registers = &mut inner.registers;
        let negotiating = status::ACKNOWLEDGE | status::DRIVER;
        if registers.status & (negotiating | status::FEATURES_OK) != negotiating {
            return;
        }
        registers.driver_features = match registers.driver_features_page {
            0 => registers.driver_features >> 32 << 32 | u64::from(value),
            1 => registers.driver_features & u64::from(u32::MAX) | u64::from(value) << 32,
            _ => registers.driver_features,
        };
    }

    fn set_status(&self, inner: &mut Inner, value: u32) {
        if value == 0 {
            self.reset(inner);
            return;
        }
        let before = inner.registers.status;
        // Bits are only added (§2.1.1); FEATURES_OK is, if the features are ours.
        let mut added = value & !before & !status::NEEDS_RESET;
        let chosen = inner.registers.driver_features;
        if added & status::FEATURES_OK != 0
            && (chosen & !inner.device.features() != 0 || chosen & feature::VERSION_1 == 0)
        {
            added &= !status::FEATURES_OK;
        }
        inner.registers.status |= added;
        let ready = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;
        let failed = status::FAILED | status::NEEDS_RESET;
        if added & status::DRIVER_OK != 0 && inner.registers.status & (ready | failed) == ready {
            self.activate(inner);
        }
    }

    fn activate(&self, inner: &mut Inner) {
        let event_index = inner.registers.driver_features & feature::EVENT_INDEX != 0;
        for queue in &mut inner.queues {
            queue.set_event_idx(event_index);
        }
        let invalid = inner.queues.iter().position(|queue| queue.ready() && !queue.is_valid(&*self.ram));
        if let Some(index) = invalid {
            self.stop(inner, &Broken(format!("queue {index} is not in the guest's memory")));
            return;
        }
        inner.device.activate(inner.registers.driver_features);
        inner.active = true;
    }

    fn reset(&self, inner: &mut Inner) {
        inner.device.reset();
        inner.queues.iter_mut().for_each(QueueT::reset);
        inner.registers = Registers { generation: inner.registers.generation, ..Default::default() };
        inner.active = false;
        inner.broken = None;
        self.interrupt.set_status(0);
        for event in &self.events {
            let _ = event.read();
        }
    }

    /// The transport's and the device's state; nothing runs.
    pub fn save(&self) -> crate::state::DeviceState {
        let inner = self.inner();
        let queues = inner
            .queues
            .iter()
            .map(|queue| {
                let state = queue.state();
                SavedQueue {
                    size: state.size,
                    ready: state.ready,
                    descriptors: state.desc_table,
                    available: state.avail_ring,
                    used: state.used_ring,
                    next_available: state.next_avail,
                    next_used: state.next_used,
                }
            })
            .collect();
        crate::state::DeviceState {
            kind: inner.device.kind(),
            transport: TransportState {
                registers: inner.registers.clone(),
                interrupt: self.interrupt.status(),
                active: inner.active,
                queues,
            },
            own: inner.device.save(),
        }
    }

    /// Takes a saved state back.
    pub fn restore(&self, state: &crate::state::DeviceState) -> Result<()> {
        let refuse = |reason: String| Error::State(format!("device {}: {reason}", self.name));
        let mut inner = self.inner();
        let inner = &mut *inner;
        let saved = &state.transport;
        if state.kind != inner.device.kind() || saved.queues.len() != inner.queues.len() {
            return Err(refuse("the saved machine had another one in its place".into()));
        }
        let features = saved.registers.driver_features;
        if features & !inner.device.features() != 0 {
            return Err(refuse("its driver uses features that are not on offer here".into()));
        }
        let event_index = features & feature::EVENT_INDEX != 0;
        for (queue, saved) in inner.queues.iter_mut().zip(&saved.queues) {
            let state = QueueState {
                max_size: queue.max_size(),
                next_avail: saved.next_available,
                next_used: saved.next_used,
                event_idx_enabled: event_index,
                size: saved.size,
                ready: saved.ready,
                desc_table: saved.descriptors,
                avail_ring: saved.available,
                used_ring: saved.used,
            };
            let restored = Queue::try_from(state).map_err(|cause| refuse(cause.to_string()))?;
            if restored.ready() && !restored.is_valid(&*self.ram) {
                return Err(refuse("a queue is not in the guest's memory".into()));
            }
            *queue = restored;
        }
        inner.registers = saved.registers.clone();
        self.interrupt.set_status(saved.interrupt);
        if saved.active {
            inner.device.activate(features);
        }
        inner.device.restore(state.own.clone()).map_err(refuse)?;
        inner.active = saved.active;
        Ok(())
    }
}

fn configure_queue(inner: &mut Inner, offset: u64, value: u32) {
    let setting = inner.registers.status & (status::FEATURES_OK | status::DRIVER_OK) == status::FEATURES_OK;
    let Some(queue) = inner.queues.get_mut(inner.registers.queue as usize).filter(|_| setting) else { return };
    match offset {
        0x38 => queue.set_size(u16::try_from(value).unwrap_or(0)),
        0x44 => queue.set_ready(value == 1),
        // A ready queue stays where it is (§4.2.2.2).
        _ if queue.ready() => {}
        0x80 => queue.set_desc_table_address(Some(value), None),
        0x84 => queue.set_desc_table_address(None, Some(value)),
        0x90 => queue.set_avail_ring_address(Some(value), None),
        0x94 => queue.set_avail_ring_address(None, Some(value)),
        0xa0 => queue.set_used_ring_address(Some(value), None),
        0xa4 => queue.set_used_ring_address(None, Some(value)),
        _ => {}
    }
}
