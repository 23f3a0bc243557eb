//! The framed stream: `[stream, 0, 0, 0, length BE32]` + payload.

use bytes::{Buf, Bytes};

/// Length of a frame's header.
pub const HEADER_BYTES: usize = 8;

/// What a frame's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// 1 is stdout, 2 is stderr.
    pub stream: u8,
    /// Length of the payload.
    pub payload_bytes: u32,
}

/// A part of the stream within one frame: perhaps its header, and some of its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Present at the beginning of a frame.
    pub header: Option<Frame>,
    /// May be empty.
    pub payload: Bytes,
}

/// A frame's header.
pub fn encode_header(stream: u8, payload_bytes: u32) -> [u8; HEADER_BYTES] {
    let [a, b, c, d] = payload_bytes.to_be_bytes();
    [stream, 0, 0, 0, a, b, c, d]
}

/// Cuts a framed stream into pieces. It buffers no payload, whatever length a header claims.
#[derive(Default)]
pub struct FrameParser {
    header: Vec<u8>,
    stream: u8,
    missing_bytes: u32,
}

impl FrameParser {
    /// The stream of the frame that the last piece belonged to.
    pub fn stream(&self) -> u8 {
        self.stream
    }

    /// The next piece of `chunk`, which is advanced; none if it is used up. An error is a header that cannot be.
    pub fn next(&mut self, chunk: &mut Bytes) -> Result<Option<Piece>, String> {
        let mut header = None;
        if self.missing_bytes == 0 {
            let wanted = (HEADER_BYTES - self.header.len()).min(chunk.len());
            self.header.extend_from_slice(&chunk.split_to(wanted));
            let Ok([stream, 0, 0, 0, a, b, c, d]) = <[u8; HEADER_BYTES]>::try_from(self.header.as_slice()) else {
                return match self.header.len() {
                    HEADER_BYTES => Err(format!("frame header {:02x?} is malformed", self.header)),
                    _ => Ok(None),
                };
            };
            if stream != 1 && stream != 2 {
                return Err(format!("frame header names stream {stream}"));
            }
            self.header.clear();
            self.stream = stream;
            self.missing_bytes = u32::from_be_bytes([a, b, c, d]);
            header = Some(Frame { stream, payload_bytes: self.missing_bytes });
        }
        let length = chunk.len().min(usize::try_from(self.missing_bytes).unwrap_or(usize::MAX));
        if length == 0 && header.is_none() {
            return Ok(None);
        }
        self.missing_bytes -= u32::try_from(length).unwrap_or(self.missing_bytes);
        let payload = chunk.slice(..length);
        chunk.advance(length);
        Ok(Some(Piece { header, payload }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(chunks: &[&[u8]]) -> Result<Vec<Piece>, String> {
        let mut parser = FrameParser::default();
        let mut pieces = Vec::new();
        for chunk in chunks {
            let mut chunk = Bytes::copy_from_slice(chunk);
            while let Some(piece) = parser.next(&mut chunk)? {
                pieces.push(piece);
            }
        }
        Ok(pieces)
    }

    #[test]
    fn frames_may_be_cut_anywhere() {
        let stream = b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\x01e";
        for first in 0..stream.len() {
            let pieces = parse(&[&stream[..first], &stream[first..]]).unwrap();
            let headers: Vec<_> = pieces.iter().filter_map(|piece| piece.header).collect();
            let payload: Vec<u8> = pieces.iter().flat_map(|piece| piece.payload.to_vec()).collect();
            let frame = |stream, payload_bytes| Frame { stream, payload_bytes };
            assert_eq!(headers, [frame(1, 3), frame(2, 0), frame(2, 1)]);
            assert_eq!(payload, b"oute");
        }
    }

    #[test]
    fn a_malformed_header_is_refused() {
        assert!(parse(&[b"\x03\0\0\0\0\0\0\x01x"]).is_err());
        assert!(parse(&[b"\x01\0\x01\0\0\0\0\x01x"]).is_err());
    }
}
