//! One 512-byte header block: V7, ustar, star and GNU.

use crate::error::{LayerError, Result, shown};

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 512;

/// A header's fields, before extended headers change them.
#[derive(Debug, Default)]
pub struct Header {
    pub name: Vec<u8>,
    pub link: Vec<u8>,
    pub mode: i64,
    pub uid: i64,
    pub gid: i64,
    pub size: i64,
    pub mtime: i64,
    pub flag: u8,
    pub major: i64,
    pub minor: i64,
}

#[derive(PartialEq, Eq)]
enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// Reads a header block.
pub fn parse_header(block: &[u8; BLOCK_BYTES]) -> Result<Header> {
    let name = text(&block[..100]);
    let damaged = |field: &str| LayerError::invalid(format!("the header of {} has a bad {field}", shown(name)));
    let wanted = octal(&block[148..156]).ok_or_else(|| damaged("checksum field"))?;
    let (unsigned, signed) = checksums(block);
    if wanted != unsigned && wanted != signed {
        return Err(LayerError::invalid(format!("a header has a wrong checksum (its name would be {})", shown(name))));
    }
    let format = format_of(block);
    let number = |range: std::ops::Range<usize>, field: &str| numeric(&block[range]).ok_or_else(|| damaged(field));
    let mut header = Header {
        name: name.to_vec(),
        link: text(&block[157..257]).to_vec(),
        mode: number(100..108, "mode")?,
        uid: number(108..116, "uid")?,
        gid: number(116..124, "gid")?,
        size: number(124..136, "size")?,
        mtime: number(136..148, "mtime")?,
        flag: block[156],
        ..Header::default()
    };
    if format != Format::V7 {
        header.major = number(329..337, "device number")?;
        header.minor = number(337..345, "device number")?;
    }
    let prefix = match format {
        Format::V7 => &[],
        Format::Ustar => text(&block[345..500]),
        Format::Star => text(&block[345..476]),
        Format::Gnu => old_go_prefix(block),
    };
    if !prefix.is_empty() {
        header.name = [prefix, b"/", name].concat();
    }
    Ok(header)
}

fn format_of(block: &[u8; BLOCK_BYTES]) -> Format {
    match (&block[257..263], &block[263..265]) {
        (b"ustar\0", _) if &block[508..512] == b"tar\0" => Format::Star,
        (b"ustar\0", b"00") => Format::Ustar,
        (b"ustar ", b" \0") => Format::Gnu,
        _ => Format::V7,
    }
}

/// Go before 1.8 wrote GNU headers with a ustar prefix, and so did docker of that time. GNU itself has two times there;
/// what is no time but plain ASCII is such a prefix.
fn old_go_prefix(block: &[u8; BLOCK_BYTES]) -> &[u8] {
    let is_time = |field: &[u8]| field[0] == 0 || numeric(field).is_some();
    let prefix = text(&block[345..500]);
    if is_time(&block[345..357]) && is_time(&block[357..369]) || !prefix.is_ascii() { &[] } else { prefix }
}

fn checksums(block: &[u8; BLOCK_BYTES]) -> (i64, i64) {
    let (mut unsigned, mut signed) = (0, 0);
    for (at, &byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&at) { b' ' } else { byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    (unsigned, signed)
}

/// A field up to its NUL.
pub fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// A number: octal digits, or big-endian two's complement when the first bit is set.
pub fn numeric(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 == 0 {
        return octal(field);
    }
    let start: i64 = if first & 0x40 == 0 { 0 } else { -1 };
    let mut value = (start << 6) | i64::from(first & 0x3f);
    for &byte in &field[1..] {
        value = value.checked_mul(256)?.checked_add(i64::from(byte))?;
    }
    Some(value)
}

fn octal(field: &[u8]) -> Option<i64> {
    let is_padding = |byte: &u8| *byte == b' ' || *byte == 0;
    let from = field.iter().position(|byte| !is_padding(byte)).unwrap_or(field.len());
    let to = field.iter().rposition(|byte| !is_padding(byte)).map_or(from, |last| last + 1);
    text(&field[from..to]).iter().try_fold(0_i64, |value, &byte| match byte {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(byte - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::numeric;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(numeric(b"0000644\0"), Some(0o644));
        assert_eq!(numeric(b"   17 \0\0"), Some(0o17));
        assert_eq!(numeric(b"\0\0\0\0"), Some(0));
        assert_eq!(numeric(b"\x80\0\0\0\0\x01\0\0"), Some(65536));
        assert_eq!(numeric(b"\xff\xff\xff\xff\xff\xff\xff\xfe"), Some(-2));
    }

    #[test]
    fn what_is_no_number_or_too_large_is_refused() {
        assert_eq!(numeric(b"0000689\0"), None);
        assert_eq!(numeric(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None);
    }
}
