//! Extended attributes behind an inode: a 12-byte header, then entries of 4-byte units.

use crate::tree::Xattr;

const HEADER_BYTES: u64 = 12;
const ENTRY_BYTES: u64 = 4;
const USER: u8 = 1;
const ACL_ACCESS: u8 = 2;
const ACL_DEFAULT: u8 = 3;
const TRUSTED: u8 = 4;
const SECURITY: u8 = 6;

/// Overlayfs: this directory hides the layers below.
const OPAQUE: (u8, &[u8], &[u8]) = (TRUSTED, b"overlay.opaque", b"y");

/// An attribute's name, split as EROFS stores it.
pub struct XattrName<'a> {
    pub prefix: u8,
    pub rest: &'a [u8],
}

impl<'a> XattrName<'a> {
    /// Splits a name; none for the overlay's own attributes and for name spaces that EROFS does not have.
    pub fn parse(name: &'a [u8]) -> Option<Self> {
        match name {
            b"system.posix_acl_access" => return Some(Self { prefix: ACL_ACCESS, rest: b"" }),
            b"system.posix_acl_default" => return Some(Self { prefix: ACL_DEFAULT, rest: b"" }),
            _ => {}
        }
        let prefixes = [(&b"user."[..], USER), (b"trusted.", TRUSTED), (b"security.", SECURITY)];
        let (rest, prefix) = prefixes.iter().find_map(|(text, prefix)| Some((name.strip_prefix(*text)?, *prefix)))?;
        let is_overlay = prefix != SECURITY && (rest == b"overlay" || rest.starts_with(b"overlay."));
        (!rest.is_empty() && !is_overlay).then_some(Self { prefix, rest })
    }

    /// The name is that of an access control list.
    pub fn is_acl(prefix: u8) -> bool {
        matches!(prefix, ACL_ACCESS | ACL_DEFAULT)
    }
}

fn entry_bytes(name: &[u8], value: &[u8]) -> u64 {
    (ENTRY_BYTES + (name.len() + value.len()) as u64).next_multiple_of(4)
}

/// Bytes that the attributes take behind the inode, with the opaque mark or without.
pub fn xattr_body_bytes(xattrs: &[Xattr], is_opaque: bool) -> u64 {
    if xattrs.is_empty() && !is_opaque {
        return 0;
    }
    let mark = if is_opaque { entry_bytes(OPAQUE.1, OPAQUE.2) } else { 0 };
    HEADER_BYTES + mark + xattrs.iter().map(|xattr| entry_bytes(&xattr.name, &xattr.value)).sum::<u64>()
}

/// Appends the attributes.
pub fn write_xattrs(xattrs: &[Xattr], is_opaque: bool, to: &mut Vec<u8>) {
    if xattrs.is_empty() && !is_opaque {
        return;
    }
    to.extend_from_slice(&[0; HEADER_BYTES as usize]);
    if is_opaque {
        write_entry(OPAQUE.0, OPAQUE.1, OPAQUE.2, to);
    }
    for xattr in xattrs {
        write_entry(xattr.prefix, &xattr.name, &xattr.value, to);
    }
}

/// Name and value were checked against 8 and 16 bits when the tar was read.
fn write_entry(prefix: u8, name: &[u8], value: &[u8], to: &mut Vec<u8>) {
    let end = to.len() + entry_bytes(name, value) as usize;
    to.extend_from_slice(&[name.len() as u8, prefix]);
    to.extend_from_slice(&(value.len() as u16).to_le_bytes());
    to.extend_from_slice(name);
    to.extend_from_slice(value);
    to.resize(end, 0);
}
