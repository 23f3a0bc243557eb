//! PAX extended headers (POSIX.1-2001 pax): `LENGTH KEY=VALUE\n` records.

use crate::error::{LayerError, Result, shown};
use crate::limits::{NAME_BYTES, SPARSE_PIECES, XATTR_VALUE_BYTES};

const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// What the records of one extended header change.
#[derive(Debug, Default)]
pub struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<i64>,
    pub uid: Option<i64>,
    pub gid: Option<i64>,
    /// Seconds and nanoseconds.
    pub mtime: Option<(i64, u32)>,
    /// In the order of the records; a later one of the same name counts.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: PaxSparse,
}

/// The records of GNU tar's three ways to store a sparse file in PAX.
#[derive(Debug, Default)]
pub struct PaxSparse {
    pub name: Option<Vec<u8>>,
    /// `GNU.sparse.size` or `GNU.sparse.realsize`.
    pub real_size: Option<i64>,
    /// Version 1.0: the map stands before the data.
    pub is_map_in_data: bool,
    /// Versions 0.0 and 0.1: offsets and lengths in turn.
    pub map: Option<Vec<u64>>,
}

/// Reads the records of an extended header that belongs to the entry after it.
pub fn parse_pax(mut records: &[u8]) -> Result<Pax> {
    let mut pax = Pax::default();
    while !records.is_empty() {
        let (key, value, rest) = record(records).ok_or_else(|| LayerError::invalid("a PAX header is malformed"))?;
        pax.set(key, value)?;
        records = rest;
    }
    Ok(pax)
}

fn record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    // Twenty digits are more than any length has.
    let space = records.iter().take(20).position(|&byte| byte == b' ')?;
    let length = usize::try_from(decimal(&records[..space])?).ok()?;
    if length <= space + 1 || length > records.len() {
        return None;
    }
    let (body, newline) = records[space + 1..length].split_at(length - space - 2);
    let equals = body.iter().position(|&byte| byte == b'=')?;
    let (key, value) = (&body[..equals], &body[equals + 1..]);
    (newline == b"\n" && !key.is_empty() && !key.contains(&0)).then_some((key, value, &records[length..]))
}

impl Pax {
    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let bad = || LayerError::invalid(format!("the PAX record {} has a bad value", shown(key)));
        let number = || decimal(value).ok_or_else(bad);
        if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
            if name.is_empty() || name.len() > NAME_BYTES {
                return Err(LayerError::invalid(format!("the attribute name {} is empty or too long", shown(name))));
            }
            if value.len() > XATTR_VALUE_BYTES {
                let message = format!("the attribute {} is larger than {XATTR_VALUE_BYTES} bytes", shown(name));
                return Err(LayerError::limit(message));
            }
            self.xattrs.push((name.to_vec(), value.to_vec()));
            return Ok(());
        }
        match key {
            b"path" | b"linkpath" | b"GNU.sparse.name" if value.contains(&0) => return Err(bad()),
            // An empty value takes the record of a global header back; those are not applied at all.
            b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"mtime" if value.is_empty() => {}
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            b"mtime" => self.mtime = Some(time(value).ok_or_else(bad)?),
            b"GNU.sparse.name" => self.sparse.name = Some(value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.real_size = Some(number()?),
            b"GNU.sparse.major" => self.sparse.is_map_in_data = number()? == 1,
            b"GNU.sparse.map" => self.sparse.map = Some(map(value).ok_or_else(bad)?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let map = self.sparse.map.get_or_insert_default();
                let is_turn = map.len().is_multiple_of(2) == (key == b"GNU.sparse.offset");
                let part = u64::try_from(number()?).ok().filter(|_| is_turn && map.len() < 2 * SPARSE_PIECES);
                map.push(part.ok_or_else(bad)?);
            }
            _ => {}
        }
        Ok(())
    }
}

fn map(value: &[u8]) -> Option<Vec<u64>> {
    let parts = value.split(|&byte| byte == b',').filter(|part| !part.is_empty()).take(2 * SPARSE_PIECES + 1);
    let map: Vec<u64> = parts.map(|part| decimal(part)?.try_into().ok()).collect::<Option<_>>()?;
    (map.len() <= 2 * SPARSE_PIECES).then_some(map)
}

/// A decimal number; a minus is allowed.
pub fn decimal(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Seconds with an optional fraction; digits beyond nanoseconds are cut. Before 1970 the fraction counts backwards.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let (whole, fraction) = match value.iter().position(|&byte| byte == b'.') {
        Some(point) => (&value[..point], &value[point + 1..]),
        None => (value, &[][..]),
    };
    let seconds = decimal(whole)?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanoseconds = (0..9).fold(0, |sum, at| sum * 10 + u32::from(fraction.get(at).map_or(0, |digit| digit - b'0')));
    if whole.first() == Some(&b'-') && nanoseconds > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some((seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::{parse_pax, time};

    #[test]
    fn times_have_nanoseconds_on_both_sides_of_1970() {
        assert_eq!(time(b"1700000000.123456789"), Some((1_700_000_000, 123_456_789)));
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"-0.25"), Some((-1, 750_000_000)));
        assert_eq!(time(b"1e9"), None);
    }

    #[test]
    fn attribute_values_are_bytes() {
        let pax = parse_pax(b"26 SCHILY.xattr.user.a=\xff\0\n").expect("well formed");
        assert_eq!(pax.xattrs, [(b"user.a".to_vec(), b"\xff\0".to_vec())]);
    }

    #[test]
    fn malformed_records_are_refused() {
        for records in [
            &b"x"[..],
            b"5 a=b",
            b"0 a=b\n",
            b"99 a=b\n",
            b"6 a=bc",
            b"5 ab\n",
            b"4 =\n",
            b"99999999999999999999999 a=b\n",
        ] {
            assert!(parse_pax(records).is_err(), "{}", records.escape_ascii());
        }
    }
}
