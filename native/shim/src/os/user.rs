//! Who a process runs as: `user[:group]` looked up in the root's own /etc/passwd and /etc/group, by the rules of
//! github.com/moby/sys/user `GetExecUser`.

use bulkhead_protocol::{Failure, FailureCode};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

/// An account file that is longer than this is not read: it comes from the image, or from the container.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Largest id, as in runc.
const ID_MAX: u32 = i32::MAX as u32;

/// The ids that a process gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Further groups, without repetitions.
    pub additional_gids: Vec<u32>,
    /// Home directory, `/` if none is known.
    pub home: String,
}

/// The content of a root's account files; empty where there is none.
#[derive(Clone, Debug, Default)]
pub struct AccountFiles {
    /// /etc/passwd.
    pub passwd: String,
    /// /etc/group.
    pub group: String,
}

impl AccountFiles {
    /// Reads them below an open root directory. Symbolic links stay within it; what is no regular file counts as absent.
    pub fn read(root: impl AsFd) -> Result<Self, Failure> {
        let root = root.as_fd();
        let read = |path: &str| -> Result<String, Failure> {
            let how = OpenHow::new()
                .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
                .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
            let Ok(file) = openat2(root, path, how).map(File::from) else { return Ok(String::new()) };
            if !file.metadata().is_ok_and(|facts| facts.is_file()) {
                return Ok(String::new());
            }
            let failed = |cause: String| {
                Failure::new(FailureCode::InvalidRequest, format!("/{path} in the container's root: {cause}"))
            };
            let mut content = Vec::new();
            file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content).map_err(|cause| failed(cause.to_string()))?;
            if content.len() as u64 > FILE_BYTES_MAX {
                return Err(failed(format!("longer than {FILE_BYTES_MAX} bytes")));
            }
            Ok(String::from_utf8_lossy(&content).into_owned())
        };
        Ok(Self { passwd: read("etc/passwd")?, group: read("etc/group")? })
    }

    /// Looks a user up. An empty `user` is root.
    pub fn resolve(&self, user: &str, additional_groups: &[String]) -> Result<Account, Failure> {
        let (user, group) = match user.split_once(':') {
            Some((user, group)) => (user, group),
            None => (user, ""),
        };
        let user = if user.is_empty() { "0" } else { user };
        // A number is always an id, even if an account has it as its name.
        let number = parse_id(user);
        let entry = self.passwd_entries().find(|entry| match number {
            Some(uid) => entry.uid == uid,
            None => entry.name == user,
        });
        let mut account = match (&entry, number) {
            (Some(entry), _) => Account {
                uid: entry.uid,
                gid: entry.gid,
                additional_gids: Vec::new(),
                home: if entry.home.is_empty() { "/".to_owned() } else { entry.home.to_owned() },
            },
            (None, Some(uid)) if uid <= ID_MAX => {
                Account { uid, gid: 0, additional_gids: Vec::new(), home: "/".to_owned() }
            }
            (None, Some(uid)) => {
                let message = format!("unable to find user {uid}: uids and gids must be in range 0-{ID_MAX}");
                return Err(Failure::new(FailureCode::NoSuchUser, message));
            }
            (None, None) => {
                let message = format!("unable to find user {user}: no matching entries in passwd file");
                return Err(Failure::new(FailureCode::NoSuchUser, message));
            }
        };
        let mut gids = Vec::new();
        if group.is_empty() {
            if let Some(entry) = &entry {
                let memberships = self.group_entries().filter(|group| group.has_member(entry.name));
                gids.extend(memberships.map(|group| group.gid));
            }
        } else {
            account.gid = self.find_group(group)?;
        }
        for group in additional_groups {
            gids.push(self.find_group(group)?);
        }
        // The primary group is a further one too (CVE-2022-36109).
        account.additional_gids.push(account.gid);
        for gid in gids {
            if !account.additional_gids.contains(&gid) {
                account.additional_gids.push(gid);
            }
        }
        Ok(account)
    }

    fn find_group(&self, group: &str) -> Result<u32, Failure> {
        let number = parse_id(group);
        let entry = self.group_entries().find(|entry| match number {
            Some(gid) => entry.gid == gid,
            None => entry.name == group,
        });
        entry.map(|entry| entry.gid).or(number.filter(|gid| *gid <= ID_MAX)).ok_or_else(|| {
            let message = format!("unable to find group {group}: no matching entries in group file");
            Failure::new(FailureCode::NoSuchUser, message)
        })
    }

    fn passwd_entries(&self) -> impl Iterator<Item = PasswdEntry<'_>> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.trim().split(':');
            let name = fields.next().filter(|name| !name.is_empty())?;
            let _password = fields.next();
            let uid = fields.next().map_or(0, parse_id_or_zero);
            let gid = fields.next().map_or(0, parse_id_or_zero);
            let _comment = fields.next();
            Some(PasswdEntry { name, uid, gid, home: fields.next().unwrap_or_default() })
        })
    }

    fn group_entries(&self) -> impl Iterator<Item = GroupEntry<'_>> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.trim().split(':');
            let name = fields.next().filter(|name| !name.is_empty())?;
            let _password = fields.next();
            let gid = fields.next().map_or(0, parse_id_or_zero);
            Some(GroupEntry { name, gid, members: fields.next().unwrap_or_default() })
        })
    }
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

impl GroupEntry<'_> {
    fn has_member(&self, name: &str) -> bool {
        self.members.split(',').any(|member| member == name)
    }
}

fn parse_id(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn parse_id_or_zero(text: &str) -> u32 {
    parse_id(text).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> AccountFiles {
        AccountFiles {
            passwd: "root:x:0:0:root:/root:/bin/sh\nmail:x:8:12:mail:/var/mail:\n\nodd:x:1000:1000\n7:x:9:9::/seven:"
                .into(),
            group: "root:x:0:root\nbin:x:1:root,daemon\nmail:x:12:\nwheel:x:10:mail,root".into(),
        }
    }

    fn ids(user: &str, groups: &[&str]) -> (u32, u32, Vec<u32>, String) {
        let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        let account = files().resolve(user, &groups).unwrap();
        (account.uid, account.gid, account.additional_gids, account.home)
    }

    #[test]
    fn names_and_numbers_are_looked_up() {
        assert_eq!(ids("", &[]), (0, 0, vec![0, 1, 10], "/root".into()));
        assert_eq!(ids("mail", &[]), (8, 12, vec![12, 10], "/var/mail".into()));
        assert_eq!(ids("8", &[]), (8, 12, vec![12, 10], "/var/mail".into()));
        assert_eq!(ids("odd", &[]), (1000, 1000, vec![1000], "/".into()));
        assert_eq!(ids("7", &[]), (7, 0, vec![0], "/".into()));
        assert_eq!(ids("4242", &[]), (4242, 0, vec![0], "/".into()));
    }

    #[test]
    fn a_group_replaces_the_memberships() {
        assert_eq!(ids("mail:bin", &[]), (8, 1, vec![1], "/var/mail".into()));
        assert_eq!(ids("mail:77", &["wheel", "5"]), (8, 77, vec![77, 10, 5], "/var/mail".into()));
        assert_eq!(ids(":bin", &[]), (0, 1, vec![1], "/root".into()));
    }

    #[test]
    fn unknown_names_are_told_as_docker_tells_them() {
        let message = |user: &str| files().resolve(user, &[]).unwrap_err().message;
        assert_eq!(message("nosuch"), "unable to find user nosuch: no matching entries in passwd file");
        assert_eq!(message("mail:nosuch"), "unable to find group nosuch: no matching entries in group file");
        assert!(files().resolve("4294967295", &[]).is_err());
    }
}
