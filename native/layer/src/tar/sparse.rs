//! Where the data of a sparse file belongs. GNU tar has four ways to say it: its own header, and PAX 0.0, 0.1 and 1.0.

use super::header::{BLOCK_BYTES, numeric};
use super::pax::decimal;
use crate::error::{LayerError, Result, shown};
use crate::input::TarStream;
use crate::limits::SPARSE_PIECES;

/// A run of data at an offset of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub offset: u64,
    pub bytes: u64,
}

/// Extents from offsets and lengths in turn, ascending, inside `size`, with `data_bytes` of data in all.
pub fn extents_of(name: &[u8], parts: &[u64], size: u64, data_bytes: u64) -> Result<Vec<Extent>> {
    let bad = || LayerError::invalid(format!("the sparse map of {} is malformed", shown(name)));
    let mut extents = Vec::with_capacity(parts.len() / 2);
    let (mut end, mut sum) = (0_u64, 0_u64);
    for pair in parts.chunks(2) {
        let &[offset, bytes] = pair else { return Err(bad()) };
        let after = offset.checked_add(bytes).filter(|&after| offset >= end && after <= size).ok_or_else(bad)?;
        (end, sum) = (after, sum + bytes);
        extents.push(Extent { offset, bytes });
    }
    if sum == data_bytes { Ok(extents) } else { Err(bad()) }
}

/// Reads the map of an old GNU sparse header: four pairs in it, then 21 in each extension block. Gives the parts and the
/// file's size.
pub fn read_gnu_map(name: &[u8], header: &[u8; BLOCK_BYTES], tar: &mut TarStream) -> Result<(Vec<u64>, u64)> {
    let bad = || LayerError::invalid(format!("the sparse header of {} is malformed", shown(name)));
    let number = |field: &[u8]| numeric(field).and_then(|value| u64::try_from(value).ok()).ok_or_else(bad);
    let size = number(&header[483..495])?;
    let mut parts = Vec::new();
    let mut pairs = header[386..482].to_vec();
    let mut is_extended = header[482] != 0;
    loop {
        for pair in pairs.chunks_exact(24) {
            if pair[0] == 0 {
                break;
            }
            parts.extend([number(&pair[..12])?, number(&pair[12..])?]);
        }
        if parts.len() > 2 * SPARSE_PIECES {
            return Err(LayerError::limit(format!("{} has more than {SPARSE_PIECES} sparse pieces", shown(name))));
        }
        if !is_extended {
            return Ok((parts, size));
        }
        let mut block = [0; BLOCK_BYTES];
        if tar.fill(&mut block)? < BLOCK_BYTES {
            return Err(LayerError::new(
                crate::Code::Truncated,
                format!("the tar ends in the header of {}", shown(name)),
            ));
        }
        pairs = block[..504].to_vec();
        is_extended = block[504] != 0;
    }
}

/// Reads the map that PAX 1.0 puts before the data: decimal lines, the first one the number of pairs, padded to a block.
/// Gives the parts and how many bytes of the entry's data they took.
pub fn read_data_map(name: &[u8], data_bytes: u64, tar: &mut TarStream) -> Result<(Vec<u64>, u64)> {
    let bad = || LayerError::invalid(format!("the sparse map of {} is malformed", shown(name)));
    let (mut parts, mut line, mut wanted, mut taken) = (Vec::new(), Vec::new(), None, 0_u64);
    loop {
        let mut block = [0; BLOCK_BYTES];
        taken += BLOCK_BYTES as u64;
        if taken > data_bytes || tar.fill(&mut block)? < BLOCK_BYTES {
            return Err(bad());
        }
        for &byte in &block {
            if byte != b'\n' {
                line.push(byte);
                if line.len() > 20 {
                    return Err(bad());
                }
                continue;
            }
            let value = decimal(&line).and_then(|value| u64::try_from(value).ok()).ok_or_else(bad)?;
            line.clear();
            if wanted.is_some() {
                parts.push(value);
            } else if value > SPARSE_PIECES as u64 {
                return Err(LayerError::limit(format!("{} has more than {SPARSE_PIECES} sparse pieces", shown(name))));
            } else {
                wanted = Some(2 * value);
            }
            if wanted == Some(parts.len() as u64) {
                return Ok((parts, taken));
            }
        }
    }
}
