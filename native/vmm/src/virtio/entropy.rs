//! Entropy source (§5.4): fills buffers from the host kernel's generator.

use crate::virtio::buffers::Buffers;
use crate::virtio::device::{Active, Broken, Step, VirtioDevice, Work};
use crate::virtio::{feature, kind};

/// Bytes that one request gets at most; a driver asks again for more.
const REQUEST_BYTES_MAX: usize = 64 << 10;
const CHUNK_BYTES: usize = 256;

/// The device.
#[derive(Debug, Default)]
pub struct Entropy;

impl VirtioDevice for Entropy {
    fn kind(&self) -> u32 {
        kind::ENTROPY
    }

    fn queue_sizes(&self) -> &[u16] {
        &[64]
    }

    fn features(&self) -> u64 {
        feature::COMMON
    }

    fn read_config(&self, _offset: usize, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&mut self, _features: u64) {}

    fn reset(&mut self) {}

    fn process(&mut self, _work: Work, active: &mut Active<'_>) -> Result<(), Broken> {
        let ram = active.ram;
        active.drain(0, |chain| Step::Used(Buffers::parse(chain, ram).map_or(0, |buffers| fill(&buffers))))
    }
}

fn fill(buffers: &Buffers<'_>) -> u32 {
    let mut done = 0;
    let wanted = buffers.writable.len().min(REQUEST_BYTES_MAX);
    while done < wanted {
        let mut chunk = [0; CHUNK_BYTES];
        let count = CHUNK_BYTES.min(wanted - done);
        // SAFETY: pointer and length are the chunk's.
        let got = unsafe { libc::getrandom(chunk.as_mut_ptr().cast(), count, 0) };
        // Up to 256 bytes come whole (getrandom(2)).
        if usize::try_from(got).ok() != Some(count) {
            break;
        }
        done += buffers.writable.range(done, count).copy_from(&chunk[..count]);
    }
    done as u32
}
