//! The blob: counted, hashed and decompressed on a thread of its own, so that reading and inflating overlap with
//! parsing, hashing the tar, and writing.

use crate::error::{Code, LayerError, Result};
use crate::limits::Limits;
use sha2::{Digest, Sha256};
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

/// Bytes handed over at once: large enough that the hand-over costs nothing, small enough for the cache.
const PIECE_BYTES: usize = 128 << 10;
/// Pieces under way between the threads.
const PIECES_AHEAD: usize = 4;
/// Enough of a blob's beginning to tell its format.
const MAGIC_BYTES: usize = 6;

enum Piece {
    Data(Vec<u8>),
    End(BlobEnd),
    Failed(LayerError),
}

struct BlobEnd {
    digest: String,
    bytes: u64,
    is_plain: bool,
}

/// Digests and lengths, known once everything was read.
pub struct Ends {
    pub digest: String,
    pub diff_id: String,
    pub compressed_bytes: u64,
    pub tar_bytes: u64,
}

/// Runs `read` with the uncompressed tar of `blob`. `confine` runs once the thread exists, before it reads.
pub fn with_tar<R: Read + Send, T>(
    blob: R,
    limits: &Limits,
    confine: impl FnOnce() -> Result<()>,
    read: impl FnOnce(&mut TarStream) -> Result<T>,
) -> Result<T> {
    std::thread::scope(|scope| {
        let (pieces, received) = sync_channel(PIECES_AHEAD);
        let (used, spare) = channel();
        let (started, is_started) = channel();
        let (go, may_go) = channel();
        let compressed_limit = limits.compressed_bytes;
        scope.spawn(move || {
            // A closed channel means that the other side gave up, and has said why.
            if started.send(()).is_ok() && may_go.recv().is_ok() {
                let end = match decompress(blob, compressed_limit, &pieces, &spare) {
                    Ok(end) => Piece::End(end),
                    Err(error) => Piece::Failed(error),
                };
                let _ = pieces.send(end);
            }
        });
        // The filter must not land in the middle of the thread's own start.
        is_started.recv().map_err(|_| LayerError::new(Code::Io, "the reader thread did not start"))?;
        confine()?;
        go.send(()).map_err(|_| LayerError::new(Code::Io, "the reader thread ended early"))?;
        let mut tar = TarStream {
            received,
            used,
            piece: Vec::new(),
            at: 0,
            hash: Sha256::new(),
            bytes: 0,
            limit: limits.tar_bytes,
            end: None,
        };
        read(&mut tar)
    })
}

/// The uncompressed tar, piece by piece.
pub struct TarStream {
    received: Receiver<Piece>,
    used: std::sync::mpsc::Sender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    hash: Sha256,
    bytes: u64,
    limit: u64,
    end: Option<BlobEnd>,
}

impl TarStream {
    /// The bytes at hand, at most `most`, and counts them as read. Empty only at the end.
    pub fn take(&mut self, most: u64) -> Result<&[u8]> {
        if self.at == self.piece.len() {
            self.receive()?;
        }
        let from = self.at;
        let bytes = ((self.piece.len() - from) as u64).min(most) as usize;
        self.at += bytes;
        Ok(&self.piece[from..self.at])
    }

    /// Fills `buffer`, or as much of it as there is.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let bytes = self.take((buffer.len() - filled) as u64)?;
            if bytes.is_empty() {
                break;
            }
            buffer[filled..filled + bytes.len()].copy_from_slice(bytes);
            filled += bytes.len();
        }
        Ok(filled)
    }

    /// How many more bytes the tar may have.
    pub fn left_bytes(&self) -> u64 {
        self.limit - self.bytes + (self.piece.len() - self.at) as u64
    }

    /// The limit on the tar's bytes.
    pub fn limit_bytes(&self) -> u64 {
        self.limit
    }

    /// Reads what follows the archive's end (padding counts in both digests) and gives the digests.
    pub fn finish(&mut self) -> Result<Ends> {
        while !self.take(u64::MAX)?.is_empty() {}
        let end = self.end.as_ref().ok_or_else(|| LayerError::new(Code::Io, "the blob has no end"))?;
        let diff_id = if end.is_plain { end.digest.clone() } else { digest_of(self.hash.clone()) };
        Ok(Ends { digest: end.digest.clone(), diff_id, compressed_bytes: end.bytes, tar_bytes: self.bytes })
    }

    fn receive(&mut self) -> Result<()> {
        if self.end.is_some() {
            return Ok(());
        }
        // Whether anyone still wants the old buffer does not matter.
        let _ = self.used.send(std::mem::take(&mut self.piece));
        self.at = 0;
        match self.received.recv() {
            Ok(Piece::Data(piece)) => {
                self.bytes += piece.len() as u64;
                if self.bytes > self.limit {
                    return Err(LayerError::limit(format!(
                        "the layer is larger than {} bytes uncompressed",
                        self.limit
                    )));
                }
                self.hash.update(&piece);
                self.piece = piece;
                Ok(())
            }
            Ok(Piece::End(end)) => {
                self.end = Some(end);
                Ok(())
            }
            Ok(Piece::Failed(error)) => Err(error),
            Err(_) => Err(LayerError::new(Code::Io, "the reader thread ended early")),
        }
    }
}

/// Counts and hashes the blob's bytes.
struct Blob<R> {
    inner: R,
    hash: Sha256,
    bytes: u64,
    limit: u64,
}

impl<R: Read> Read for Blob<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.inner.read(buffer).map_err(|e| io::Error::other(LayerError::from_io("read the blob", e)))?;
        self.hash.update(&buffer[..bytes]);
        self.bytes += bytes as u64;
        if self.bytes > self.limit {
            return Err(io::Error::other(LayerError::limit(format!("the blob is larger than {} bytes", self.limit))));
        }
        Ok(bytes)
    }
}

fn decompress<R: Read>(inner: R, limit: u64, pieces: &SyncSender<Piece>, spare: &Receiver<Vec<u8>>) -> Result<BlobEnd> {
    let mut blob = Blob { inner, hash: Sha256::new(), bytes: 0, limit };
    let mut magic = [0; MAGIC_BYTES];
    let magic_bytes = fill(&mut blob, &mut magic).map_err(|e| LayerError::from_io("read the blob", e))?;
    let magic = &magic[..magic_bytes];
    let is_plain = match magic {
        [0x1f, 0x8b, ..] => {
            let whole = io::BufReader::with_capacity(PIECE_BYTES, magic.chain(&mut blob));
            send_all("gzip", flate2::bufread::MultiGzDecoder::new(whole), pieces, spare)?;
            false
        }
        // A frame, or a skippable frame before one.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            let whole = io::BufReader::with_capacity(PIECE_BYTES, magic.chain(&mut blob));
            let decoder =
                zstd::Decoder::with_buffer(whole).map_err(|e| LayerError::from_io("start decompressing zstd", e))?;
            send_all("zstd", decoder, pieces, spare)?;
            false
        }
        [b'B', b'Z', b'h', ..] => return Err(unsupported("bzip2")),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => return Err(unsupported("xz")),
        [0x04, 0x22, 0x4d, 0x18, ..] => return Err(unsupported("lz4")),
        _ => {
            send_all("tar", magic.chain(&mut blob), pieces, spare)?;
            true
        }
    };
    // What a decoder left unread still belongs to the blob's digest.
    let mut rest = vec![0; PIECE_BYTES];
    while blob.read(&mut rest).map_err(|e| LayerError::from_io("read the blob", e))? > 0 {}
    Ok(BlobEnd { digest: digest_of(blob.hash), bytes: blob.bytes, is_plain })
}

fn send_all(format: &str, mut from: impl Read, pieces: &SyncSender<Piece>, spare: &Receiver<Vec<u8>>) -> Result<()> {
    loop {
        let mut piece = spare.try_recv().unwrap_or_default();
        piece.resize(PIECE_BYTES, 0);
        let (bytes, failure) = match fill_or_error(&mut from, &mut piece) {
            (bytes, None) => (bytes, None),
            (bytes, Some(error)) => (bytes, Some(malformed(format, error))),
        };
        let is_end = bytes < PIECE_BYTES;
        piece.truncate(bytes);
        if bytes > 0 && pieces.send(Piece::Data(piece)).is_err() {
            return Err(LayerError::new(Code::Io, "the layer was given up"));
        }
        match failure {
            Some(error) => return Err(error),
            None if is_end => return Ok(()),
            None => {}
        }
    }
}

fn malformed(format: &str, error: io::Error) -> LayerError {
    let is_ours = error.get_ref().is_some_and(|inner| inner.is::<LayerError>());
    if is_ours || format == "tar" {
        return LayerError::from_io("read the blob", error);
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof => LayerError::new(Code::Truncated, format!("the {format} stream ends early")),
        _ => LayerError::invalid(format!("the {format} stream is damaged: {error}")),
    }
}

fn unsupported(format: &str) -> LayerError {
    let message = format!("the blob is compressed with {format}; layers are plain tar, gzip or zstd");
    LayerError::new(Code::UnsupportedCompression, message)
}

fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    match fill_or_error(from, buffer) {
        (bytes, None) => Ok(bytes),
        (_, Some(error)) => Err(error),
    }
}

fn fill_or_error(from: &mut impl Read, buffer: &mut [u8]) -> (usize, Option<io::Error>) {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (filled, Some(error)),
        }
    }
    (filled, None)
}

fn digest_of(hash: Sha256) -> String {
    use std::fmt::Write;
    hash.finalize().iter().fold(String::from("sha256:"), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
