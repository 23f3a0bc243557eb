//! Mount options of a runtime spec → flags and data of mount(2).

use nix::mount::MsFlags;

/// What an option list means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MountOptions {
    /// Flags of the mount itself.
    pub flags: MsFlags,
    /// Propagation, set by a second call; empty for none.
    pub propagation: MsFlags,
    /// What the file system itself gets, comma separated.
    pub data: String,
}

/// Options → flags; what is not a flag goes to the file system.
pub(crate) fn parse_mount_options<S: AsRef<str>>(options: &[S]) -> MountOptions {
    let mut parsed = MountOptions { flags: MsFlags::empty(), propagation: MsFlags::empty(), data: String::new() };
    for option in options {
        let option = option.as_ref();
        if let Some((clear, flag)) = flag_of(option) {
            parsed.flags.set(flag, !clear);
        } else if let Some(flags) = propagation_of(option) {
            parsed.propagation = flags;
        } else if !matches!(option, "defaults" | "" | "tmpcopyup") {
            if !parsed.data.is_empty() {
                parsed.data.push(',');
            }
            parsed.data.push_str(option);
        }
    }
    parsed
}

/// Whether the option clears a flag, and which.
fn flag_of(option: &str) -> Option<(bool, MsFlags)> {
    Some(match option {
        "ro" => (false, MsFlags::MS_RDONLY),
        "rw" => (true, MsFlags::MS_RDONLY),
        "nosuid" => (false, MsFlags::MS_NOSUID),
        "suid" => (true, MsFlags::MS_NOSUID),
        "nodev" => (false, MsFlags::MS_NODEV),
        "dev" => (true, MsFlags::MS_NODEV),
        "noexec" => (false, MsFlags::MS_NOEXEC),
        "exec" => (true, MsFlags::MS_NOEXEC),
        "sync" => (false, MsFlags::MS_SYNCHRONOUS),
        "async" => (true, MsFlags::MS_SYNCHRONOUS),
        "dirsync" => (false, MsFlags::MS_DIRSYNC),
        "mand" => (false, MsFlags::MS_MANDLOCK),
        "nomand" => (true, MsFlags::MS_MANDLOCK),
        "noatime" => (false, MsFlags::MS_NOATIME),
        "atime" => (true, MsFlags::MS_NOATIME),
        "nodiratime" => (false, MsFlags::MS_NODIRATIME),
        "diratime" => (true, MsFlags::MS_NODIRATIME),
        "relatime" => (false, MsFlags::MS_RELATIME),
        "norelatime" => (true, MsFlags::MS_RELATIME),
        "strictatime" => (false, MsFlags::MS_STRICTATIME),
        "nostrictatime" => (true, MsFlags::MS_STRICTATIME),
        _ => return None,
    })
}

fn propagation_of(option: &str) -> Option<MsFlags> {
    let recursive = if option.starts_with('r') { MsFlags::MS_REC } else { MsFlags::empty() };
    Some(match option {
        "private" | "rprivate" => MsFlags::MS_PRIVATE | recursive,
        "slave" | "rslave" => MsFlags::MS_SLAVE | recursive,
        "shared" | "rshared" => MsFlags::MS_SHARED | recursive,
        "unbindable" | "runbindable" => MsFlags::MS_UNBINDABLE | recursive,
        _ => return None,
    })
}

/// Propagation of the whole root file system, from `linux.rootfsPropagation`; private when nothing is said.
pub(crate) fn root_propagation(word: &str) -> MsFlags {
    // pivot_root(2) refuses a shared root; `shared` therefore ends as a private root, as seen from inside a machine.
    match propagation_of(word) {
        Some(flags) if !flags.contains(MsFlags::MS_SHARED) && !flags.contains(MsFlags::MS_UNBINDABLE) => {
            flags | MsFlags::MS_REC
        }
        _ => MsFlags::MS_PRIVATE | MsFlags::MS_REC,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_data_and_propagation_are_told_apart() {
        let parsed = parse_mount_options(&["nosuid", "noexec", "size=65536k", "mode=1777", "rslave"]);
        assert_eq!(parsed.flags, MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC);
        assert_eq!(parsed.propagation, MsFlags::MS_SLAVE | MsFlags::MS_REC);
        assert_eq!(parsed.data, "size=65536k,mode=1777");
    }

    #[test]
    fn the_last_of_two_contrary_options_wins() {
        assert_eq!(parse_mount_options(&["ro", "rw"]).flags, MsFlags::empty());
        assert_eq!(parse_mount_options(&["rw", "ro"]).flags, MsFlags::MS_RDONLY);
    }

    #[test]
    fn relatime_is_a_flag_and_not_a_recursive_word() {
        assert_eq!(parse_mount_options(&["relatime"]).flags, MsFlags::MS_RELATIME);
    }

    #[test]
    fn a_shared_root_becomes_private() {
        assert_eq!(root_propagation("shared"), MsFlags::MS_PRIVATE | MsFlags::MS_REC);
        assert_eq!(root_propagation("rslave"), MsFlags::MS_SLAVE | MsFlags::MS_REC);
    }
}
