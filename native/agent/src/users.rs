//! `user[:group]` → ids, by the rules of Docker, from the passwd and group files of the container's own root.

use crate::failure::{Result, invalid};
use bulkhead_protocol::{Failure, FailureCode};

/// Who a process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, without the primary one.
    pub groups: Vec<u32>,
    /// Home directory, `/` when nothing says otherwise.
    pub home: String,
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Looks `user` up; `default` is taken where the words say nothing (an empty user is looked up by its uid, as Docker
/// does, so that root has its supplementary groups). Numbers that no file knows are fine, names are not.
pub(crate) fn resolve_user(user: &str, default: (u32, u32), passwd: &str, group: &str) -> Result<Identity> {
    let (user_word, group_word) = user.split_once(':').unwrap_or((user, ""));
    let default_uid = default.0.to_string();
    let wanted = if user_word.is_empty() { default_uid.as_str() } else { user_word };
    let entry = passwd_entries(passwd).find(|entry| entry.name == wanted || is_number(wanted, entry.uid));
    let mut identity = match &entry {
        Some(entry) => {
            Identity { uid: entry.uid, gid: entry.gid, groups: Vec::new(), home: non_empty(entry.home).to_owned() }
        }
        None => {
            let uid = numeric_id(wanted)?
                .ok_or_else(|| no_such(format!("unable to find user {wanted}: no matching entries in passwd file")))?;
            Identity { uid, gid: default.1, groups: Vec::new(), home: "/".into() }
        }
    };
    if !group_word.is_empty() {
        identity.gid = resolve_group(group_word, group)?;
    } else if let Some(entry) = entry {
        if user_word.is_empty() && default.1 != 0 {
            identity.gid = default.1;
        }
        identity.groups = group_entries(group)
            .filter(|candidate| candidate.members.split(',').any(|member| member.trim() == entry.name))
            .map(|candidate| candidate.gid)
            .collect();
    }
    Ok(identity)
}

/// Looks one group up, by name or number.
pub(crate) fn resolve_group(word: &str, group: &str) -> Result<u32> {
    if let Some(entry) = group_entries(group).find(|entry| entry.name == word || is_number(word, entry.gid)) {
        return Ok(entry.gid);
    }
    numeric_id(word)?.ok_or_else(|| no_such(format!("unable to find group {word}: no matching entries in group file")))
}

fn no_such(message: String) -> Failure {
    Failure::new(FailureCode::NoSuchUser, message)
}

fn non_empty(home: &str) -> &str {
    if home.is_empty() { "/" } else { home }
}

fn is_number(word: &str, id: u32) -> bool {
    word.parse() == Ok(id) && !word.starts_with('+')
}

fn numeric_id(word: &str) -> Result<Option<u32>> {
    if word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match word.parse::<i32>() {
        Ok(id) => Ok(Some(id.unsigned_abs())),
        Err(_) => Err(invalid(format!("{word}: uids and gids must be in range 0-2147483647"))),
    }
}

fn passwd_entries(text: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    fields_of_lines(text).filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let (_comment, home) = (fields.next(), fields.next().unwrap_or(""));
        Some(PasswdEntry { name, uid, gid, home })
    })
}

fn group_entries(text: &str) -> impl Iterator<Item = GroupEntry<'_>> {
    fields_of_lines(text).filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let gid = fields.next()?.parse().ok()?;
        Some(GroupEntry { name, gid, members: fields.next().unwrap_or("") })
    })
}

fn fields_of_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# a comment\nnot a line\nana:x:1000:1000::/home/ana:/bin/sh\n";
    const GROUP: &str = "root:x:0:root\nwheel:x:10:root,ana\nana:x:1000:\naudio:x:29: ana\n";

    #[test]
    fn a_name_gives_ids_groups_and_home() {
        let identity = resolve_user("ana", (0, 0), PASSWD, GROUP).unwrap();
        assert_eq!(identity, Identity { uid: 1000, gid: 1000, groups: vec![10, 29], home: "/home/ana".into() });
    }

    #[test]
    fn no_user_is_root_with_the_groups_that_the_image_gives_root() {
        let identity = resolve_user("", (0, 0), PASSWD, GROUP).unwrap();
        assert_eq!(identity, Identity { uid: 0, gid: 0, groups: vec![0, 10], home: "/root".into() });
    }

    #[test]
    fn a_known_number_is_read_as_its_user() {
        assert_eq!(resolve_user("1000", (0, 0), PASSWD, GROUP).unwrap().groups, vec![10, 29]);
    }

    #[test]
    fn an_unknown_number_is_fine_and_has_group_0() {
        let identity = resolve_user("4711", (0, 0), PASSWD, GROUP).unwrap();
        assert_eq!(identity, Identity { uid: 4711, gid: 0, groups: vec![], home: "/".into() });
    }

    #[test]
    fn a_group_word_replaces_the_group_and_drops_the_further_ones() {
        let identity = resolve_user("ana:audio", (0, 0), PASSWD, GROUP).unwrap();
        assert_eq!((identity.uid, identity.gid, identity.groups), (1000, 29, vec![]));
        assert_eq!(resolve_user("7:8", (0, 0), PASSWD, GROUP).unwrap().gid, 8);
    }

    #[test]
    fn unknown_names_are_told_in_dockers_words() {
        let failure = resolve_user("nosuch", (0, 0), PASSWD, GROUP).unwrap_err();
        assert_eq!(failure.message, "unable to find user nosuch: no matching entries in passwd file");
        assert_eq!(failure.code, FailureCode::NoSuchUser);
        let failure = resolve_user("ana:nosuch", (0, 0), PASSWD, GROUP).unwrap_err();
        assert_eq!(failure.message, "unable to find group nosuch: no matching entries in group file");
    }

    #[test]
    fn a_number_out_of_range_is_refused() {
        assert_eq!(resolve_user("2147483648", (0, 0), "", "").unwrap_err().code, FailureCode::InvalidRequest);
    }
}
