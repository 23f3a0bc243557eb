//! A process's output as one framed stream with offsets: a bounded buffer between its pipes and the one that reads.

use bytes::{Bytes, BytesMut};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Output that nobody has read yet; the process waits when there is more.
const MAX_UNREAD_BYTES: u64 = 1 << 20;

/// Output that was handed to a reader is kept this long, for the next reader after a broken connection. It must not be
/// less than the reader's HTTP/2 window (4 MiB) and what waits in a socket: that much can be under way and lost.
const RETAINED_BYTES: u64 = (4 << 20) + (512 << 10);

/// Most that one piece of an answer holds when small frames are put together.
const MAX_PIECE_BYTES: usize = 128 << 10;

/// Frames of at least this size are passed on without a copy.
const COPY_BELOW_BYTES: usize = 16 << 10;

/// What the book-keeping of one frame takes, so that a program that writes byte by byte stays within the limits too.
const FRAME_COST_BYTES: u64 = 64;

/// Length of a frame's header.
pub(crate) const HEADER_BYTES: usize = 8;

/// Which of a process's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout = 1,
    Stderr = 2,
}

/// The stream of one process.
#[derive(Debug, Default)]
pub(crate) struct Output {
    state: RefCell<State>,
}

#[derive(Debug)]
struct Entry {
    start: u64,
    cost_before: u64,
    bytes: Bytes,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Entry>,
    /// Offset behind the last byte.
    end: u64,
    /// Memory that all frames so far have taken.
    cost: u64,
    /// How far the furthest reader is, as an offset and as a cost.
    read: u64,
    read_cost: u64,
    /// How many pipes still feed it.
    sources: usize,
    readers: Vec<Waker>,
    writers: Vec<Waker>,
    finished: Vec<Waker>,
}

impl Output {
    /// Adds one source, which calls [`Output::finish_source`] when it is done.
    pub(crate) fn add_source(&self) {
        self.state.borrow_mut().sources += 1;
    }

    /// Appends a frame whose payload was written behind [`HEADER_BYTES`] of space.
    pub(crate) fn push(&self, stream: Stream, mut frame: BytesMut) {
        let length = (frame.len() - HEADER_BYTES) as u32;
        frame[0] = stream as u8;
        frame[4..HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
        let mut state = self.state.borrow_mut();
        let (start, cost_before) = (state.end, state.cost);
        state.end += frame.len() as u64;
        state.cost += frame.len() as u64 + FRAME_COST_BYTES;
        state.frames.push_back(Entry { start, cost_before, bytes: frame.freeze() });
        wake(&mut state.readers);
    }

    /// One source has nothing more.
    pub(crate) fn finish_source(&self) {
        let mut state = self.state.borrow_mut();
        state.sources -= 1;
        if state.sources == 0 {
            wake(&mut state.readers);
            wake(&mut state.finished);
        }
    }

    /// Waits until there is room for more.
    pub(crate) async fn room(&self) {
        poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            if state.cost - state.read_cost < MAX_UNREAD_BYTES {
                return Poll::Ready(());
            }
            state.writers.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Waits until every source is done; then this is the length of the whole stream.
    pub(crate) async fn total_bytes(&self) -> u64 {
        poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            if state.sources == 0 {
                return Poll::Ready(state.end);
            }
            state.finished.push(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// A reader from `from` (none: from now), which may begin later when that is no longer kept.
    pub(crate) fn read(self: &Rc<Self>, from: Option<u64>, stdout: bool, stderr: bool) -> OutputReader {
        let state = self.state.borrow();
        let position = from.unwrap_or(state.end).clamp(state.first(), state.end);
        OutputReader { output: Rc::clone(self), position, stdout, stderr }
    }
}

fn wake(wakers: &mut Vec<Waker>) {
    wakers.drain(..).for_each(Waker::wake);
}

impl State {
    /// Offset of the first byte that is kept.
    fn first(&self) -> u64 {
        self.frames.front().map_or(self.end, |entry| entry.start)
    }

    /// The frame at `position`, from there on.
    fn frame_at(&self, position: u64) -> Option<(Stream, Bytes)> {
        let index = self.frames.partition_point(|entry| entry.start <= position).checked_sub(1)?;
        let entry = &self.frames[index];
        let skip = (position - entry.start) as usize;
        let stream = if entry.bytes[0] == Stream::Stderr as u8 { Stream::Stderr } else { Stream::Stdout };
        (skip < entry.bytes.len()).then(|| (stream, entry.bytes.slice(skip..)))
    }

    /// Notes how far a reader is, lets writers go on, and drops what is older than need be.
    fn advance(&mut self, position: u64) {
        if position <= self.read {
            return;
        }
        self.read = position;
        let index = self.frames.partition_point(|entry| entry.start < position);
        self.read_cost = self.frames.get(index).map_or(self.cost, |entry| entry.cost_before);
        if self.cost - self.read_cost < MAX_UNREAD_BYTES {
            wake(&mut self.writers);
        }
        while let Some(second) = self.frames.get(1)
            && second.cost_before + RETAINED_BYTES <= self.read_cost
        {
            self.frames.pop_front();
        }
    }
}

/// One reader of an [`Output`], from an offset to the end of the process.
pub(crate) struct OutputReader {
    output: Rc<Output>,
    position: u64,
    stdout: bool,
    stderr: bool,
}

impl OutputReader {
    /// Offset of the next byte.
    pub(crate) fn offset(&self) -> u64 {
        self.position
    }

    /// The next piece, or none at the end.
    pub(crate) fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = self.output.state.borrow_mut();
        let mut gathered: Option<BytesMut> = None;
        let mut piece = None;
        while let Some((stream, frame)) = state.frame_at(self.position) {
            let wanted = match stream {
                Stream::Stdout => self.stdout,
                Stream::Stderr => self.stderr,
            };
            if wanted {
                let gathered_bytes = gathered.as_ref().map_or(0, BytesMut::len);
                if gathered_bytes == 0 && frame.len() >= COPY_BELOW_BYTES {
                    self.position += frame.len() as u64;
                    piece = Some(frame);
                    break;
                }
                if gathered_bytes + frame.len() > MAX_PIECE_BYTES {
                    break;
                }
                gathered.get_or_insert_default().extend_from_slice(&frame);
            }
            self.position += frame.len() as u64;
        }
        state.advance(self.position);
        match piece.or(gathered.map(BytesMut::freeze)) {
            Some(piece) => Poll::Ready(Some(piece)),
            None if state.sources == 0 => Poll::Ready(None),
            None => {
                state.readers.push(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: &[u8]) -> BytesMut {
        let mut buffer = BytesMut::zeroed(HEADER_BYTES);
        buffer.extend_from_slice(payload);
        buffer
    }

    fn output_of(frames: &[(Stream, &[u8])]) -> Rc<Output> {
        let output = Rc::new(Output::default());
        output.add_source();
        for (stream, payload) in frames {
            output.push(*stream, frame(payload));
        }
        output
    }

    fn read_all(reader: &mut OutputReader) -> Vec<u8> {
        let mut context = Context::from_waker(Waker::noop());
        let mut all = Vec::new();
        while let Poll::Ready(Some(piece)) = reader.poll_piece(&mut context) {
            all.extend_from_slice(&piece);
        }
        all
    }

    #[test]
    fn frames_carry_stream_and_length() {
        let output = output_of(&[(Stream::Stdout, b"hi"), (Stream::Stderr, b"no")]);
        let bytes = read_all(&mut output.read(Some(0), true, true));
        assert_eq!(bytes, b"\x01\0\0\0\0\0\0\x02hi\x02\0\0\0\0\0\0\x02no");
    }

    #[test]
    fn a_reader_begins_at_any_offset() {
        let output = output_of(&[(Stream::Stdout, b"hello"), (Stream::Stdout, b"you")]);
        assert_eq!(read_all(&mut output.read(Some(9), true, true)), b"ello\x01\0\0\0\0\0\0\x03you");
        assert_eq!(read_all(&mut output.read(None, true, true)), b"");
        assert_eq!(output.read(Some(1 << 40), true, true).offset(), 24);
    }

    #[test]
    fn a_filtered_reader_still_counts_everything() {
        let output = output_of(&[(Stream::Stdout, b"out"), (Stream::Stderr, b"err")]);
        let mut reader = output.read(Some(0), false, true);
        assert_eq!(read_all(&mut reader), b"\x02\0\0\0\0\0\0\x03err");
        assert_eq!(reader.offset(), 22);
    }

    #[test]
    fn what_was_read_long_ago_is_dropped_and_the_offset_says_so() {
        let payload = vec![7; 64 << 10];
        let output = output_of(&[]);
        for _ in 0..120 {
            output.push(Stream::Stdout, frame(&payload));
            let read = output.state.borrow().read;
            read_all(&mut output.read(Some(read), true, true));
        }
        let kept = output.state.borrow().end - output.state.borrow().first();
        assert!((RETAINED_BYTES - (128 << 10)..RETAINED_BYTES + (128 << 10)).contains(&kept), "{kept}");
        assert_eq!(output.read(Some(0), true, true).offset(), output.state.borrow().first());
    }

    #[test]
    fn the_writer_waits_while_nobody_reads() {
        let payload = vec![7; MAX_UNREAD_BYTES as usize];
        let output = output_of(&[(Stream::Stdout, &payload)]);
        let mut context = Context::from_waker(Waker::noop());
        assert!(std::pin::pin!(output.room()).poll(&mut context).is_pending());
        read_all(&mut output.read(Some(0), true, true));
        assert!(std::pin::pin!(output.room()).poll(&mut context).is_ready());
    }

    #[test]
    fn the_end_is_told_when_the_last_source_is_done() {
        let output = output_of(&[(Stream::Stdout, b"x")]);
        let mut reader = output.read(Some(0), true, true);
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(reader.poll_piece(&mut context), Poll::Ready(Some(_))));
        assert!(reader.poll_piece(&mut context).is_pending());
        output.finish_source();
        assert!(matches!(reader.poll_piece(&mut context), Poll::Ready(None)));
    }
}
