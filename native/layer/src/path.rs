//! Names in a tar, cleaned as dockerd cleans them.

use crate::error::{LayerError, Result, shown};
use crate::limits::{NAME_BYTES, PATH_BYTES};

/// The components of an entry's name, from the layer's root down; none for the root itself.
///
/// Lexical, as Go's `filepath.Clean`: empty components and `.` vanish, `a/..` too; `..` above the root stays at the root
/// in an absolute name and is refused in a relative one.
pub fn components(name: &[u8]) -> Result<Vec<&[u8]>> {
    if name.len() > PATH_BYTES {
        return Err(LayerError::limit(format!("the name {} is longer than {PATH_BYTES} bytes", shown(name))));
    }
    let is_absolute = name.first() == Some(&b'/');
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.pop().is_some() || is_absolute => {}
            b".." => return Err(LayerError::invalid(format!("the name {} leads out of the layer", shown(name)))),
            _ if part.len() > NAME_BYTES => {
                let message = format!("the name {} has a component longer than {NAME_BYTES} bytes", shown(name));
                return Err(LayerError::limit(message));
            }
            _ => parts.push(part),
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::components;

    fn joined(name: &str) -> Option<String> {
        let parts = components(name.as_bytes()).ok()?;
        Some(parts.iter().map(|part| String::from_utf8_lossy(part).into_owned()).collect::<Vec<_>>().join("/"))
    }

    #[test]
    fn names_are_cleaned_lexically() {
        for (name, clean) in [
            ("./", ""),
            ("/", ""),
            ("", ""),
            ("a//b/./c/", "a/b/c"),
            ("a/../b", "b"),
            ("/../../etc/x", "etc/x"),
            ("./a/b/..", "a"),
        ] {
            assert_eq!(joined(name).as_deref(), Some(clean), "{name}");
        }
    }

    #[test]
    fn a_relative_name_that_leaves_the_layer_is_refused() {
        assert_eq!(joined("../x"), None);
        assert_eq!(joined("a/../../x"), None);
    }

    #[test]
    fn a_component_has_at_most_255_bytes() {
        assert!(joined(&"n".repeat(255)).is_some());
        assert_eq!(joined(&"n".repeat(256)), None);
    }
}
