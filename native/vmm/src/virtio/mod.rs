//! Virtio 1.2 devices over MMIO.
//!
//! Source: <https://docs.oasis-open.org/virtio/virtio/v1.2/virtio-v1.2.html>; sections are named where they matter.

pub mod block;
pub mod block_backend;
pub mod buffers;
pub mod console;
mod console_stream;
pub mod device;
pub mod entropy;
pub mod net;
pub mod rate_limit;
#[cfg(test)]
mod test_driver;
pub mod transport;
#[cfg(test)]
mod transport_tests;

/// Device ids (§5).
pub mod kind {
    /// Network card.
    pub const NET: u32 = 1;
    /// Block device.
    pub const BLOCK: u32 = 2;
    /// Console.
    pub const CONSOLE: u32 = 3;
    /// Entropy source.
    pub const ENTROPY: u32 = 4;
}

/// Feature bits of every device (§6).
pub mod feature {
    /// `VIRTIO_F_INDIRECT_DESC`.
    pub const INDIRECT: u64 = 1 << 28;
    /// `VIRTIO_F_EVENT_IDX`.
    pub const EVENT_INDEX: u64 = 1 << 29;
    /// `VIRTIO_F_VERSION_1`.
    pub const VERSION_1: u64 = 1 << 32;
    /// What every device here has.
    pub const COMMON: u64 = INDIRECT | EVENT_INDEX | VERSION_1;
}
