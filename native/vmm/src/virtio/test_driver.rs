//! The driver's side of a virtio device, for tests: registers, queues, descriptors, as a guest has them.

use crate::memory::{GuestRam, Mapping, create_memory_file, map_guest_ram};
use crate::virtio::device::{VirtioDevice, Work};
use crate::virtio::feature;
use crate::virtio::transport::Transport;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Guest memory of a test.
pub(crate) const RAM_BYTES: u64 = 1 << 20;
/// Where buffers may be put.
pub(crate) const BUFFERS: u64 = 0x4_0000;
/// Flags of a descriptor (§2.7.5).
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// Address, length, flags, next.
pub(crate) type Descriptor = (u64, u32, u16, u16);

/// A driver.
pub(crate) struct Driver {
    pub(crate) ram: Arc<GuestRam>,
    pub(crate) transport: Transport,
    pub(crate) interrupt: EventFd,
    size: u16,
    available: Vec<u16>,
}

impl Driver {
    /// A device that no driver has touched.
    pub(crate) fn untouched(device: Box<dyn VirtioDevice>) -> Self {
        let file = create_memory_file(RAM_BYTES).unwrap();
        let ram = Arc::new(map_guest_ram(Some(file), RAM_BYTES, Mapping::Shared).unwrap());
        let interrupt = EventFd::new(EFD_NONBLOCK).unwrap();
        let line = interrupt.try_clone().unwrap();
        let transport = Transport::new("test".into(), device, Arc::clone(&ram), line).unwrap();
        let queues = transport.events.len();
        Self { ram, transport, interrupt, size: 16, available: vec![0; queues] }
    }

    /// A device whose driver runs, with all its features but notification by index.
    pub(crate) fn running(device: Box<dyn VirtioDevice>) -> Self {
        let mut driver = Self::untouched(device);
        driver.restart();
        driver
    }

    /// Resets the device and begins anew with empty queues.
    pub(crate) fn restart(&mut self) {
        self.negotiate();
        for queue in 0..self.available.len() {
            self.available[queue] = 0;
            self.put(Self::table(queue), &[0; 0x1000]);
            self.make_queue(queue);
        }
        self.write(0x70, 15);
    }

    pub(crate) fn write(&self, offset: u64, value: u32) {
        self.transport.write(offset, &value.to_le_bytes());
    }

    pub(crate) fn read(&self, offset: u64) -> u32 {
        let mut word = [0; 4];
        self.transport.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    pub(crate) fn negotiate(&self) {
        self.write(0x70, 0);
        self.write(0x70, 1);
        self.write(0x70, 3);
        for page in 0..2 {
            self.write(0x14, page);
            let offered = self.read(0x10);
            let without = if page == 0 { feature::EVENT_INDEX as u32 } else { 0 };
            self.write(0x24, page);
            self.write(0x20, offered & !without);
        }
        self.write(0x70, 11);
        assert_eq!(self.read(0x70), 11);
    }

    fn table(queue: usize) -> u64 {
        0x1000 + queue as u64 * 0x1000
    }

    pub(crate) fn make_queue(&self, queue: usize) {
        let table = Self::table(queue);
        self.write(0x30, queue as u32);
        self.write(0x38, self.size.into());
        for (register, address) in [(0x80, table), (0x90, table + 0x400), (0xa0, table + 0x800)] {
            self.write(register, address as u32);
            self.write(register + 4, 0);
        }
        self.write(0x44, 1);
    }

    /// Writes descriptors from the table's beginning and offers the first as a chain.
    pub(crate) fn offer(&mut self, queue: usize, descriptors: &[Descriptor]) {
        let table = Self::table(queue);
        for (index, descriptor) in (0_u64..).zip(descriptors) {
            self.put_descriptor(table + index * 16, *descriptor);
        }
        self.offer_head(queue, 0);
    }

    pub(crate) fn put_descriptor(&self, at: u64, (address, length, flags, next): Descriptor) {
        self.ram.write_obj(address, GuestAddress(at)).unwrap();
        self.ram.write_obj(length, GuestAddress(at + 8)).unwrap();
        self.ram.write_obj(u32::from(flags) | u32::from(next) << 16, GuestAddress(at + 12)).unwrap();
    }

    pub(crate) fn offer_head(&mut self, queue: usize, head: u16) {
        let ring = Self::table(queue) + 0x400;
        let position = self.available[queue];
        self.ram.write_obj(head, GuestAddress(ring + 4 + u64::from(position % self.size) * 2)).unwrap();
        self.available[queue] = position.wrapping_add(1);
        self.ram.write_obj(self.available[queue], GuestAddress(ring + 2)).unwrap();
    }

    /// Lets the device work on a queue.
    pub(crate) fn notify(&self, queue: usize) {
        self.transport.process(Work::Queue(queue));
    }

    /// How many chains of the queue are used, and the length of the last.
    pub(crate) fn used(&self, queue: usize) -> (u16, u32) {
        let ring = Self::table(queue) + 0x800;
        let count: u16 = self.ram.read_obj(GuestAddress(ring + 2)).unwrap();
        let last = u64::from(count.wrapping_sub(1) % self.size);
        (count, self.ram.read_obj(GuestAddress(ring + 4 + last * 8 + 4)).unwrap())
    }

    pub(crate) fn put(&self, address: u64, bytes: &[u8]) {
        self.ram.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    pub(crate) fn get(&self, address: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.ram.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    pub(crate) fn needs_reset(&self) -> bool {
        self.read(0x70) & 64 != 0
    }
}

/// Numbers that look random and are the same in each run.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Mostly a number that means something, sometimes any.
    pub(crate) fn near(&mut self, likely: &[u64]) -> u64 {
        let pick = self.next();
        if pick.is_multiple_of(4) {
            self.next() >> (self.next() % 64)
        } else {
            likely[(pick >> 8) as usize % likely.len()]
        }
    }
}
