//! Block device (§5.2): requests are parsed into [`Request`] and executed on a [`Backend`].

use crate::virtio::block_backend::{Backend, SECTOR_BYTES};
use crate::virtio::buffers::{Buffers, Pieces};
use crate::virtio::device::{Active, Broken, Changed, Control, Step, VirtioDevice, Work, read_config_bytes};
use crate::virtio::rate_limit::RateLimit;
use crate::virtio::{feature, kind};
use std::io;
use std::os::fd::RawFd;

const FEATURE_SEGMENTS: u64 = 1 << 2;
const FEATURE_READ_ONLY: u64 = 1 << 5;
const FEATURE_BLOCK_SIZE: u64 = 1 << 6;
const FEATURE_FLUSH: u64 = 1 << 9;
const FEATURE_DISCARD: u64 = 1 << 13;
const FEATURE_WRITE_ZEROES: u64 = 1 << 14;

const QUEUE_SIZE: u16 = 256;
/// Data buffers in one request.
const SEGMENTS_MAX: u32 = 254;
/// Ranges in one discard request.
const RANGES_MAX: usize = 64;
/// Sectors in one range: 2 GiB.
const RANGE_SECTORS_MAX: u32 = 1 << 22;
const HEADER_BYTES: usize = 16;
const RANGE_BYTES: usize = 16;
/// Length of the answer to a question for the serial number.
const SERIAL_BYTES: usize = 20;

const STATUS_OK: u8 = 0;
const STATUS_IO_ERROR: u8 = 1;
const STATUS_UNSUPPORTED: u8 = 2;

/// A range of a discard or write-zeroes request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    offset: u64,
    bytes: u64,
    unmap: bool,
}

/// What a driver asks for.
#[derive(Debug)]
enum Request<'m> {
    Read {
        offset: u64,
        target: Pieces<'m>,
    },
    Write {
        offset: u64,
        source: Pieces<'m>,
    },
    Flush,
    Discard(Vec<Range>),
    WriteZeroes(Vec<Range>),
    Serial(Pieces<'m>),
    /// Understood as a request, but not one that is on offer or possible: the status for it.
    Refused(u8),
}

/// A request and where its status goes.
#[derive(Debug)]
struct Parsed<'m> {
    request: Request<'m>,
    status: Pieces<'m>,
}

/// Parses a request; none where there is not even room for a header and a status.
fn parse<'m>(buffers: &Buffers<'m>) -> Option<Parsed<'m>> {
    let mut header = [0; HEADER_BYTES];
    if buffers.readable.copy_to(&mut header) != HEADER_BYTES || buffers.writable.is_empty() {
        return None;
    }
    let data_in = buffers.writable.range(0, buffers.writable.len() - 1);
    let status = buffers.writable.range(buffers.writable.len() - 1, 1);
    let data_out = buffers.readable.range(HEADER_BYTES, usize::MAX);
    let kind = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    let sector = u64::from_le_bytes(header[8..16].try_into().ok()?);
    let whole = |pieces: &Pieces<'_>| !pieces.is_empty() && (pieces.len() as u64).is_multiple_of(SECTOR_BYTES);
    let offset = sector.checked_mul(SECTOR_BYTES);
    let request = match (kind, offset) {
        (0, Some(offset)) if whole(&data_in) => Request::Read { offset, target: data_in },
        (1, Some(offset)) if whole(&data_out) => Request::Write { offset, source: data_out },
        (0 | 1, _) => Request::Refused(STATUS_IO_ERROR),
        (4, _) => Request::Flush,
        (8, _) => Request::Serial(data_in),
        (11, _) => parse_ranges(&data_out).map_or(Request::Refused(STATUS_IO_ERROR), Request::Discard),
        (13, _) => parse_ranges(&data_out).map_or(Request::Refused(STATUS_IO_ERROR), Request::WriteZeroes),
        _ => Request::Refused(STATUS_UNSUPPORTED),
    };
    Some(Parsed { request, status })
}

fn parse_ranges(pieces: &Pieces<'_>) -> Option<Vec<Range>> {
    let count = pieces.len() / RANGE_BYTES;
    if count == 0 || count > RANGES_MAX || !pieces.len().is_multiple_of(RANGE_BYTES) {
        return None;
    }
    let mut bytes = [0; RANGES_MAX * RANGE_BYTES];
    pieces.copy_to(&mut bytes);
    bytes[..count * RANGE_BYTES].chunks_exact(RANGE_BYTES).map(parse_range).collect()
}

fn parse_range(bytes: &[u8]) -> Option<Range> {
    let sector = u64::from_le_bytes(bytes.get(0..8)?.try_into().ok()?);
    let sectors = u32::from_le_bytes(bytes.get(8..12)?.try_into().ok()?);
    let flags = u32::from_le_bytes(bytes.get(12..16)?.try_into().ok()?);
    if sectors == 0 || sectors > RANGE_SECTORS_MAX || flags & !1 != 0 {
        return None;
    }
    let offset = sector.checked_mul(SECTOR_BYTES)?;
    Some(Range { offset, bytes: u64::from(sectors) * SECTOR_BYTES, unmap: flags & 1 != 0 })
}

/// Executes a request; the status, and how many bytes of data were written to its buffers.
fn execute(request: &Request<'_>, backend: &Backend, serial: &[u8; SERIAL_BYTES]) -> (u8, usize) {
    let done = |result: io::Result<()>, bytes: usize| match result {
        Ok(()) => (STATUS_OK, bytes),
        Err(_) => (STATUS_IO_ERROR, 0),
    };
    match request {
        Request::Read { offset, target } => done(backend.read(*offset, target), target.len()),
        Request::Write { offset, source } => done(backend.write(*offset, source), 0),
        Request::Flush => done(backend.flush(), 0),
        Request::Discard(ranges) => {
            // Flags are for write-zeroes only (§5.2.6.2).
            if ranges.iter().any(|range| range.unmap) {
                return (STATUS_UNSUPPORTED, 0);
            }
            done(ranges.iter().try_for_each(|range| backend.zero(range.offset, range.bytes, true)), 0)
        }
        Request::WriteZeroes(ranges) => {
            done(ranges.iter().try_for_each(|range| backend.zero(range.offset, range.bytes, range.unmap)), 0)
        }
        Request::Serial(target) => (STATUS_OK, target.copy_from(serial)),
        Request::Refused(status) => (*status, 0),
    }
}

/// How much a request counts for the limit of bytes.
fn cost(request: &Request<'_>) -> u64 {
    match request {
        Request::Read { target, .. } => target.len() as u64,
        Request::Write { source, .. } => source.len() as u64,
        _ => 0,
    }
}

/// Requests of a disk since its machine began.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockCounters {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Requests that ended in an error.
    pub failed: u64,
}

/// The device.
#[derive(Debug)]
pub struct Block {
    backend: Backend,
    read_only: bool,
    serial: [u8; SERIAL_BYTES],
    limit: RateLimit,
    counters: BlockCounters,
}

impl Block {
    /// A disk with a serial number of at most 20 bytes.
    pub fn new(backend: Backend, serial: &str, limit: RateLimit) -> Result<Self, String> {
        let mut bytes = [0; SERIAL_BYTES];
        let place = bytes
            .get_mut(..serial.len())
            .ok_or_else(|| format!("the serial number {serial} has more than 20 bytes"))?;
        place.copy_from_slice(serial.as_bytes());
        Ok(Self {
            read_only: backend.is_read_only(),
            backend,
            serial: bytes,
            limit,
            counters: BlockCounters::default(),
        })
    }

    fn config(&self) -> [u8; 60] {
        let mut config = [0; 60];
        let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &(self.backend.bytes() / SECTOR_BYTES).to_le_bytes());
        put(12, &SEGMENTS_MAX.to_le_bytes());
        put(20, &(SECTOR_BYTES as u32).to_le_bytes());
        put(36, &RANGE_SECTORS_MAX.to_le_bytes());
        put(40, &(RANGES_MAX as u32).to_le_bytes());
        put(44, &8_u32.to_le_bytes());
        put(48, &RANGE_SECTORS_MAX.to_le_bytes());
        put(52, &(RANGES_MAX as u32).to_le_bytes());
        put(56, &[1]);
        config
    }

    fn serve(&mut self, buffers: &Buffers<'_>) -> Step {
        // Without a status there is nobody to tell.
        let Some(parsed) = parse(buffers) else { return Step::Used(0) };
        if !self.limit.take(cost(&parsed.request)) {
            return Step::Later;
        }
        let (status, bytes) = execute(&parsed.request, &self.backend, &self.serial);
        match (&parsed.request, status) {
            (Request::Read { .. }, STATUS_OK) => self.counters.read_bytes += cost(&parsed.request),
            (Request::Write { .. }, STATUS_OK) => self.counters.written_bytes += cost(&parsed.request),
            (_, STATUS_OK) => {}
            _ => self.counters.failed += 1,
        }
        parsed.status.copy_from(&[status]);
        Step::Used(bytes as u32 + 1)
    }
}

impl VirtioDevice for Block {
    fn kind(&self) -> u32 {
        kind::BLOCK
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn features(&self) -> u64 {
        let own = FEATURE_SEGMENTS | FEATURE_BLOCK_SIZE | FEATURE_FLUSH;
        let by_use = if self.read_only { FEATURE_READ_ONLY } else { FEATURE_DISCARD | FEATURE_WRITE_ZEROES };
        feature::COMMON | own | by_use
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        read_config_bytes(&self.config(), offset, data);
    }

    fn activate(&mut self, _features: u64) {}

    fn reset(&mut self) {}

    fn process(&mut self, work: Work, active: &mut Active<'_>) -> Result<(), Broken> {
        if let Work::Source(_) = work {
            self.limit.acknowledge();
        }
        let ram = active.ram;
        active.drain(0, |chain| match Buffers::parse(chain, ram) {
            Ok(buffers) => self.serve(&buffers),
            Err(_) => Step::Used(0),
        })
    }

    fn sources(&self) -> Vec<RawFd> {
        vec![self.limit.source()]
    }

    fn control(&mut self, control: Control) -> Result<Changed, String> {
        match control {
            Control::Resize => self.backend.refresh_size().map_err(|cause| cause.to_string())?,
            Control::Limit { bytes, operations } => {
                self.limit.set(bytes, operations);
                return Ok(Changed::default());
            }
            // Only an empty disk is given something, and what it gets has to be of its kind: the driver knows what it may write.
            Control::Attach(backend) => {
                if !matches!(self.backend, Backend::Empty { .. }) {
                    return Err("the disk has something already".into());
                }
                if backend.is_read_only() != self.read_only {
                    return Err("a disk for reading only cannot stand for one that is written, nor the reverse".into());
                }
                self.backend = backend;
            }
            Control::Connect { .. } => return Err("a disk has no port".into()),
        }
        Ok(Changed { configuration: true, sources: false })
    }

    fn describe(&self) -> serde_json::Value {
        serde_json::json!({
            "bytes": self.backend.bytes(),
            "readOnly": self.read_only,
            "counters": self.counters,
        })
    }

    fn save(&self) -> serde_json::Value {
        serde_json::json!({ "bytes": self.backend.bytes(), "readOnly": self.read_only })
    }

    fn restore(&mut self, state: serde_json::Value) -> Result<(), String> {
        if state["bytes"].as_u64() != Some(self.backend.bytes()) || state["readOnly"].as_bool() != Some(self.read_only)
        {
            return Err(format!("its disk is not the one that the driver knows ({state})"));
        }
        Ok(())
    }
}
