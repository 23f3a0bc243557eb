//! The output of one process: the last MiB of its framed stream, addressed by offset, for any number of readers.
//!
//! A reader that is slower than the process makes the process wait, as a pipe would, but not for ever: once the ring is full
//! and the slowest reader has taken nothing for [`STALLED_READER`], that reader is cut off.

use crate::framing::{HEADER_BYTES, Piece, encode_header};
use bulkhead_protocol::{Failure, FailureCode};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How much of the stream is kept, bytes.
pub const RING_BYTES: usize = 1024 * 1024;
/// How long a reader may take nothing while the ring is full.
pub const STALLED_READER: Duration = Duration::from_secs(10);
/// Most that a reader gets at once, and that enters the ring at once, bytes.
const STEP_BYTES: usize = 32 * 1024;

/// What a reader wants of the stream.
#[derive(Clone, Copy, Debug)]
pub struct Selection {
    /// Stream 1.
    pub stdout: bool,
    /// Stream 2.
    pub stderr: bool,
    /// Leave the frame headers out (terminals).
    pub raw: bool,
}

impl Selection {
    fn takes(self, stream: u8) -> bool {
        if stream == 2 { self.stderr } else { self.stdout }
    }
}

/// The ring; a clone is another handle of the same.
#[derive(Clone, Default)]
pub struct Output(Arc<Shared>);

#[derive(Default)]
struct Shared {
    ring: Mutex<Ring>,
    /// Bytes came, or the end.
    grew: Notify,
    /// A reader moved on or went away.
    moved: Notify,
}

#[derive(Default)]
struct Ring {
    bytes: VecDeque<u8>,
    /// Offset of the first byte of `bytes`.
    start: u64,
    /// Every frame of which a byte is in the ring, in order.
    frames: VecDeque<FrameSpan>,
    readers: BTreeMap<u64, Position>,
    next_reader: u64,
    ended: bool,
}

struct FrameSpan {
    offset: u64,
    end: u64,
    stream: u8,
}

struct Position {
    offset: u64,
    moved_at: Instant,
    cut_off: bool,
}

impl Ring {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// The reader that holds the ring's start, if one does.
    fn slowest(&mut self) -> Option<&mut Position> {
        self.readers.values_mut().filter(|reader| !reader.cut_off).min_by_key(|reader| reader.offset)
    }

    /// Makes room for `wanted` bytes by dropping what no reader still needs. False if a reader must move first.
    fn make_room(&mut self, wanted: usize) -> bool {
        let excess = (self.bytes.len() + wanted).saturating_sub(RING_BYTES);
        if excess == 0 {
            return true;
        }
        let start = self.start;
        let held = self.slowest().map_or(u64::MAX, |reader| reader.offset.saturating_sub(start));
        let dropped = usize::try_from(held).unwrap_or(usize::MAX).min(excess);
        self.bytes.drain(..dropped);
        self.start += dropped as u64;
        while self.frames.front().is_some_and(|frame| frame.end <= self.start) {
            self.frames.pop_front();
        }
        dropped == excess
    }

    /// The offset where a reader that asked for `from` begins: always where a frame can be read from its start, unless the
    /// reader names an offset in the middle of one.
    fn resolve(&self, from: Option<u64>) -> Result<u64, Failure> {
        let wanted = match from {
            Some(offset) if offset > self.end() => {
                let message = format!("output offset {offset} is beyond the end, {}", self.end());
                return Err(Failure::new(FailureCode::InvalidRequest, message));
            }
            Some(offset) if offset >= self.start => return Ok(offset),
            // Lost already: the oldest whole frame.
            Some(_) => self.start,
            // Now: the end, or the beginning of the frame that is coming in.
            None => match self.frames.back() {
                Some(frame) if frame.end > self.end() => frame.offset,
                _ => self.end(),
            },
        };
        if wanted > self.start {
            return Ok(wanted);
        }
        Ok(match self.frames.front() {
            Some(frame) if frame.offset < self.start => frame.end,
            _ => self.start,
        })
    }

    /// Takes the next bytes of a selection, from `offset` on; returns where it got to.
    fn take(&self, offset: u64, selection: Selection, into: &mut BytesMut) -> u64 {
        let end = self.end();
        let mut offset = offset;
        let first = self.frames.partition_point(|frame| frame.end <= offset);
        for frame in self.frames.iter().skip(first) {
            if offset >= end || into.len() >= STEP_BYTES {
                break;
            }
            let stop = frame.end.min(end).min(offset + STEP_BYTES as u64);
            if selection.takes(frame.stream) {
                let payload = frame.offset + HEADER_BYTES as u64;
                let from = if selection.raw { offset.max(payload) } else { offset };
                self.copy(from, stop, into);
            }
            offset = stop.max(offset);
            if offset < frame.end {
                break;
            }
        }
        offset
    }

    fn copy(&self, from: u64, to: u64, into: &mut BytesMut) {
        if from >= to {
            return;
        }
        let (from, to) = ((from - self.start) as usize, (to - self.start) as usize);
        let (front, back) = self.bytes.as_slices();
        let split = front.len();
        into.put_slice(&front[from.min(split)..to.min(split)]);
        into.put_slice(&back[from.max(split) - split..to.max(split) - split]);
    }
}

impl Output {
    /// Adds a piece of the stream; waits while a reader holds the full ring.
    pub async fn push(&self, piece: &Piece) {
        if let Some(frame) = piece.header {
            let header = encode_header(frame.stream, frame.payload_bytes);
            self.room_for(HEADER_BYTES).await;
            let mut ring = self.lock();
            let offset = ring.end();
            let end = offset + (HEADER_BYTES as u64) + u64::from(frame.payload_bytes);
            ring.frames.push_back(FrameSpan { offset, end, stream: frame.stream });
            ring.bytes.extend(&header);
        }
        for step in piece.payload.chunks(STEP_BYTES) {
            self.room_for(step.len()).await;
            self.lock().bytes.extend(step);
            self.0.grew.notify_waiters();
        }
        self.0.grew.notify_waiters();
    }

    /// No more will come.
    pub fn end(&self) {
        let mut ring = self.lock();
        ring.ended = true;
        ring.bytes.shrink_to_fit();
        drop(ring);
        self.0.grew.notify_waiters();
    }

    /// Length of the stream so far.
    pub fn length(&self) -> u64 {
        self.lock().end()
    }

    /// A new reader, from an offset or from now. Its first byte may lie later than asked for: see [`Reader::offset`].
    pub fn reader(&self, from: Option<u64>, selection: Selection) -> Result<Reader, Failure> {
        let mut ring = self.lock();
        let offset = ring.resolve(from)?;
        let id = ring.next_reader;
        ring.next_reader += 1;
        ring.readers.insert(id, Position { offset, moved_at: Instant::now(), cut_off: false });
        drop(ring);
        Ok(Reader { output: self.clone(), id, offset, selection })
    }

    async fn room_for(&self, wanted: usize) {
        let mut full_since = None;
        loop {
            let mut moved = std::pin::pin!(self.0.moved.notified());
            moved.as_mut().enable();
            let deadline = {
                let mut ring = self.lock();
                if ring.make_room(wanted) {
                    return;
                }
                let now = Instant::now();
                let full_since = *full_since.get_or_insert(now);
                let Some(slowest) = ring.slowest() else { continue };
                let deadline = slowest.moved_at.max(full_since) + STALLED_READER;
                if deadline <= now {
                    slowest.cut_off = true;
                    self.0.grew.notify_waiters();
                    continue;
                }
                deadline
            };
            let _ = tokio::time::timeout_at(deadline, moved).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the stream that moves on as it is read.
pub struct Reader {
    output: Output,
    id: u64,
    offset: u64,
    selection: Selection,
}

impl Reader {
    /// Offset of the next byte.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes of the selection, or none at the end. An error means that the reader was too slow and is cut off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StalledReader> {
        let shared = self.output.0.clone();
        loop {
            let mut grew = std::pin::pin!(shared.grew.notified());
            grew.as_mut().enable();
            {
                let mut ring = self.output.lock();
                if ring.readers.get(&self.id).is_none_or(|position| position.cut_off) {
                    return Err(StalledReader);
                }
                let mut taken = BytesMut::new();
                let offset = ring.take(self.offset, self.selection, &mut taken);
                if offset != self.offset {
                    self.offset = offset;
                    if let Some(position) = ring.readers.get_mut(&self.id) {
                        position.offset = offset;
                        position.moved_at = Instant::now();
                    }
                    shared.moved.notify_waiters();
                    if taken.is_empty() {
                        continue;
                    }
                    return Ok(Some(taken.freeze()));
                }
                if ring.ended {
                    return Ok(None);
                }
            }
            grew.await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.output.lock().readers.remove(&self.id);
        self.output.0.moved.notify_waiters();
    }
}

/// A reader took nothing for too long while the process was waiting for it.
#[derive(Debug)]
pub struct StalledReader;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::Frame;

    const ALL: Selection = Selection { stdout: true, stderr: true, raw: false };

    fn piece(stream: u8, payload: &[u8]) -> Piece {
        let header = Frame { stream, payload_bytes: u32::try_from(payload.len()).unwrap() };
        Piece { header: Some(header), payload: Bytes::copy_from_slice(payload) }
    }

    async fn read_all(reader: &mut Reader) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(bytes) = reader.next().await.unwrap() {
            all.extend_from_slice(&bytes);
        }
        all
    }

    #[tokio::test]
    async fn a_reader_from_zero_gets_every_frame() {
        let output = Output::default();
        output.push(&piece(1, b"out")).await;
        output.push(&piece(2, b"err")).await;
        output.end();
        let all = read_all(&mut output.reader(Some(0), ALL).unwrap()).await;
        assert_eq!(all, b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x03err");
        assert_eq!(output.length(), 22);
    }

    #[tokio::test]
    async fn a_selection_leaves_out_the_other_stream_and_raw_leaves_out_headers() {
        let output = Output::default();
        output.push(&piece(1, b"out")).await;
        output.push(&piece(2, b"err")).await;
        output.push(&piece(1, b"put")).await;
        output.end();
        let only_stderr = Selection { stdout: false, ..ALL };
        assert_eq!(read_all(&mut output.reader(Some(0), only_stderr).unwrap()).await, b"\x02\0\0\0\0\0\0\x03err");
        let raw_stdout = Selection { stderr: false, raw: true, ..ALL };
        assert_eq!(read_all(&mut output.reader(Some(0), raw_stdout).unwrap()).await, b"output");
    }

    #[tokio::test]
    async fn a_reader_that_resumes_in_the_middle_of_a_frame_gets_the_rest_of_it() {
        let output = Output::default();
        output.push(&piece(1, b"abcdef")).await;
        output.end();
        assert_eq!(read_all(&mut output.reader(Some(10), ALL).unwrap()).await, b"cdef");
        assert_eq!(read_all(&mut output.reader(Some(3), ALL).unwrap()).await, b"\0\0\0\0\x06abcdef");
        assert!(output.reader(Some(15), ALL).is_err());
    }

    #[tokio::test]
    async fn without_readers_the_oldest_output_is_dropped_and_a_late_reader_starts_at_a_frame() {
        let output = Output::default();
        let block = vec![7; 100_000];
        for _ in 0..30 {
            output.push(&piece(1, &block)).await;
        }
        output.end();
        let mut reader = output.reader(Some(0), ALL).unwrap();
        assert_eq!(reader.offset() % 100_008, 0);
        assert!(reader.offset() > 1_900_000);
        let first = reader.offset();
        assert_eq!(first + read_all(&mut reader).await.len() as u64, output.length());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_cut_off_after_ten_seconds_and_the_process_goes_on() {
        let output = Output::default();
        let mut stalled = output.reader(Some(0), ALL).unwrap();
        let began = Instant::now();
        let block = vec![7; 64 * 1024];
        for _ in 0..32 {
            output.push(&piece(1, &block)).await;
        }
        assert_eq!(began.elapsed().as_secs(), STALLED_READER.as_secs());
        assert!(stalled.next().await.is_err());
    }

    #[tokio::test]
    async fn a_reader_that_reads_gets_all_however_much_it_is() {
        let output = Output::default();
        let mut reader = output.reader(Some(0), Selection { raw: true, ..ALL }).unwrap();
        let writer = output.clone();
        let writing = tokio::spawn(async move {
            for number in 0..200_u8 {
                writer.push(&piece(1, &vec![number; 50_000])).await;
            }
            writer.end();
        });
        let all = read_all(&mut reader).await;
        writing.await.unwrap();
        assert_eq!(all.len(), 200 * 50_000);
        assert!(all.chunks(50_000).zip(0..).all(|(block, number)| block.iter().all(|byte| *byte == number)));
    }
}
