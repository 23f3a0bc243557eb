//! Network card (§5.1) on a tap. Frames go between the tap and the guest's buffers with the virtio header that Linux's tap understands.

use crate::virtio::buffers::{Buffers, Pieces};
use crate::virtio::device::{Active, Broken, Changed, Control, Step, VirtioDevice, Work, read_config_bytes};
use crate::virtio::rate_limit::RateLimit;
use crate::virtio::{feature, kind};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use virtio_queue::{QueueOwnedT, QueueT};

const FEATURE_CHECKSUM: u64 = 1;
const FEATURE_GUEST_CHECKSUM: u64 = 1 << 1;
const FEATURE_MTU: u64 = 1 << 3;
const FEATURE_MAC: u64 = 1 << 5;
const FEATURE_GUEST_TSO4: u64 = 1 << 7;
const FEATURE_GUEST_TSO6: u64 = 1 << 8;
const FEATURE_HOST_TSO4: u64 = 1 << 11;
const FEATURE_HOST_TSO6: u64 = 1 << 12;
const FEATURE_MERGEABLE_BUFFERS: u64 = 1 << 15;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const QUEUE_SIZE: u16 = 256;

/// `struct virtio_net_hdr_v1`.
pub const HEADER_BYTES: usize = 12;
/// Where its count of buffers is.
const BUFFERS_FIELD: usize = 10;
/// A segment of 64 KiB, an Ethernet header with two VLAN tags, and ours.
const FRAME_BYTES_MAX: usize = 65_536 + 22 + HEADER_BYTES;
/// Buffers of one received frame.
const FRAME_BUFFERS_MAX: usize = 64;
/// Frames of one turn.
const TURN_FRAMES_MAX: usize = 512;

/// linux/if_tun.h.
pub const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
/// linux/if_tun.h.
pub const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;
const TUN_F_CSUM: libc::c_ulong = 1;
const TUN_F_TSO4: libc::c_ulong = 2;
const TUN_F_TSO6: libc::c_ulong = 4;

const TAP_SOURCE: usize = 0;

/// The device.
#[derive(Debug)]
pub struct Net {
    tap: File,
    mac: [u8; 6],
    mtu: u16,
    limit: RateLimit,
    features: u64,
    /// The tap does not know the driver's offloads yet.
    offload_due: bool,
    frame: Vec<u8>,
    /// Bytes of a frame that was read and for which there was no room yet.
    waiting: usize,
    /// Frames that were dropped.
    dropped: u64,
}

/// Why the tap cannot be used.
fn tap_call(tap: &File, request: libc::c_ulong, argument: *const libc::c_int, what: &str) -> Result<(), String> {
    // SAFETY: an open descriptor; the argument points to an integer that lives through the call.
    if unsafe { libc::ioctl(tap.as_raw_fd(), request as _, argument) } < 0 {
        return Err(format!("{what}: {}", io::Error::last_os_error()));
    }
    Ok(())
}

impl Net {
    /// A card on an open tap (IFF_TAP, IFF_NO_PI, IFF_VNET_HDR).
    pub fn new(tap: File, mac: [u8; 6], mtu: u16, limit: RateLimit) -> Result<Self, String> {
        tap_call(
            &tap,
            TUNSETVNETHDRSZ,
            &(HEADER_BYTES as libc::c_int),
            "the descriptor is not a tap with virtio headers",
        )?;
        // SAFETY: plain flags on an open descriptor.
        if unsafe { libc::fcntl(tap.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) } < 0 {
            return Err(format!("O_NONBLOCK: {}", io::Error::last_os_error()));
        }
        Ok(Self {
            tap,
            mac,
            mtu,
            limit,
            features: 0,
            offload_due: false,
            frame: vec![0; FRAME_BYTES_MAX],
            waiting: 0,
            dropped: 0,
        })
    }

    fn set_offload(&mut self) {
        if !std::mem::take(&mut self.offload_due) {
            return;
        }
        let mut flags = 0;
        for (offered, flag) in
            [(FEATURE_GUEST_CHECKSUM, TUN_F_CSUM), (FEATURE_GUEST_TSO4, TUN_F_TSO4), (FEATURE_GUEST_TSO6, TUN_F_TSO6)]
        {
            if self.features & offered != 0 {
                flags |= flag;
            }
        }
        // SAFETY: a plain number on an open descriptor. A tap that refuses hands out frames as they would be on a wire.
        unsafe { libc::ioctl(self.tap.as_raw_fd(), TUNSETOFFLOAD as _, flags) };
    }

    /// A frame from the tap, or one that waits.
    fn next_frame(&mut self) -> Option<usize> {
        if self.waiting == 0 {
            // An error is an empty tap, or one that is gone: the guest sees a silent network.
            self.waiting = self.tap.read(&mut self.frame).unwrap_or(0);
        }
        (self.waiting >= HEADER_BYTES).then_some(self.waiting)
    }

    fn receive(&mut self, active: &mut Active<'_>) -> Result<(), Broken> {
        if !active.has_queue(RECEIVE) {
            return Ok(());
        }
        let mut given = false;
        for turn in 0.. {
            let Some(bytes) = self.next_frame() else { break };
            if turn == TURN_FRAMES_MAX {
                let _ = active.events[RECEIVE].write(1);
                break;
            }
            if !self.give_frame(bytes, active)? {
                break;
            }
            self.waiting = 0;
            given = true;
        }
        let queue = &mut active.queues[RECEIVE];
        if given && queue.needs_notification(active.ram)? {
            active.interrupt.tell_used();
        }
        Ok(())
    }

    /// Puts the frame into the driver's buffers; false if there are too few.
    fn give_frame(&mut self, bytes: usize, active: &mut Active<'_>) -> Result<bool, Broken> {
        let ram = active.ram;
        let queue = &mut active.queues[RECEIVE];
        let mergeable = self.features & FEATURE_MERGEABLE_BUFFERS != 0;
        let mut buffers: Vec<(u16, Pieces<'_>)> = Vec::new();
        let (mut room, mut enough) = (0, false);
        loop {
            let Some(chain) = queue.iter(ram)?.next() else {
                // Buffers that came while nobody was told are taken now.
                if queue.enable_notification(ram)? {
                    continue;
                }
                break;
            };
            let head = chain.head_index();
            // A buffer that is none counts as one without room: it goes back to the driver with the frame.
            let pieces = Buffers::parse(chain, ram).map(|buffers| buffers.writable).unwrap_or_default();
            room += pieces.len();
            buffers.push((head, pieces));
            enough = room >= bytes;
            if enough || !mergeable || buffers.len() == FRAME_BUFFERS_MAX {
                break;
            }
        }
        if !enough && buffers.len() < FRAME_BUFFERS_MAX && (mergeable || buffers.is_empty()) {
            buffers.iter().for_each(|_| queue.go_to_previous_position());
            return Ok(false);
        }
        if !enough {
            self.dropped += 1;
            for (head, _) in buffers {
                queue.add_used(ram, head, 0)?;
            }
            return Ok(true);
        }
        let count = if mergeable { buffers.len() as u16 } else { 1 };
        self.frame[BUFFERS_FIELD..HEADER_BYTES].copy_from_slice(&count.to_le_bytes());
        let mut done = 0;
        for (head, pieces) in buffers {
            let count = pieces.copy_from(&self.frame[done..bytes]);
            queue.add_used(ram, head, count as u32)?;
            done += count;
        }
        Ok(true)
    }

    fn transmit(&mut self, active: &mut Active<'_>) -> Result<(), Broken> {
        let ram = active.ram;
        active.drain(TRANSMIT, |chain| {
            let Ok(buffers) = Buffers::parse(chain, ram) else {
                self.dropped += 1;
                return Step::Used(0);
            };
            let bytes = buffers.readable.len();
            if !(HEADER_BYTES..=FRAME_BYTES_MAX).contains(&bytes) {
                self.dropped += 1;
                return Step::Used(0);
            }
            if !self.limit.take(bytes as u64) {
                return Step::Later;
            }
            let vectors = buffers.readable.io_vectors();
            // SAFETY: the vectors are guest memory that the buffers borrow.
            let sent = unsafe { libc::writev(self.tap.as_raw_fd(), vectors.as_ptr(), vectors.len() as i32) };
            // A header that the host's kernel does not believe, or a queue that is full: lost, as on a wire.
            self.dropped += u64::from(sent < 0);
            Step::Used(0)
        })
    }
}

impl VirtioDevice for Net {
    fn kind(&self) -> u32 {
        kind::NET
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    fn features(&self) -> u64 {
        feature::COMMON
            | FEATURE_CHECKSUM
            | FEATURE_GUEST_CHECKSUM
            | FEATURE_MTU
            | FEATURE_MAC
            | FEATURE_GUEST_TSO4
            | FEATURE_GUEST_TSO6
            | FEATURE_HOST_TSO4
            | FEATURE_HOST_TSO6
            | FEATURE_MERGEABLE_BUFFERS
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        // mac, status, max_virtqueue_pairs, mtu.
        let mut config = [0; 12];
        config[..6].copy_from_slice(&self.mac);
        config[10..].copy_from_slice(&self.mtu.to_le_bytes());
        read_config_bytes(&config, offset, data);
    }

    fn activate(&mut self, features: u64) {
        self.features = features;
        self.offload_due = true;
    }

    fn reset(&mut self) {
        self.features = 0;
        self.waiting = 0;
    }

    fn process(&mut self, work: Work, active: &mut Active<'_>) -> Result<(), Broken> {
        self.set_offload();
        match work {
            Work::Queue(TRANSMIT) => self.transmit(active),
            Work::Queue(_) | Work::Source(TAP_SOURCE) => self.receive(active),
            Work::Source(_) => {
                self.limit.acknowledge();
                self.transmit(active)
            }
        }
    }

    fn sources(&self) -> Vec<RawFd> {
        vec![self.tap.as_raw_fd(), self.limit.source()]
    }

    fn describe(&self) -> serde_json::Value {
        serde_json::json!({ "droppedFrames": self.dropped })
    }

    fn control(&mut self, control: Control) -> Result<Changed, String> {
        let Control::Limit { bytes, operations } = control else {
            return Err("a network card has limits to change, nothing else".into());
        };
        self.limit.set(bytes, operations);
        Ok(Changed::default())
    }
}
