//! What a process gives up before its program runs: capabilities, ids, resource limits.

use crate::failure::{Doing, Result, invalid};
use crate::spec::{CapabilitySpec, RlimitSpec};
use crate::users::Identity;
use nix::errno::Errno;
use nix::unistd::{Gid, Uid};

/// Names by number, from linux/capability.h.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Capability sets as bit masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CapabilitySets {
    bounding: u64,
    effective: u64,
    inheritable: u64,
    permitted: u64,
    ambient: u64,
}

impl CapabilitySets {
    /// From the spec's names; a name that no kernel knows yet is left out, as runc does.
    pub(crate) fn parse(spec: &CapabilitySpec) -> Self {
        Self {
            bounding: mask(&spec.bounding),
            effective: mask(&spec.effective),
            inheritable: mask(&spec.inheritable),
            permitted: mask(&spec.permitted),
            ambient: mask(&spec.ambient),
        }
    }
}

fn mask(names: &[String]) -> u64 {
    names.iter().fold(0, |mask, name| {
        let short = name.strip_prefix("CAP_").unwrap_or(name);
        mask | CAPABILITIES.iter().position(|known| *known == short).map_or(0, |bit| 1 << bit)
    })
}

fn prctl(option: libc::c_int, arg2: libc::c_ulong, arg3: libc::c_ulong) -> nix::Result<()> {
    // SAFETY: only options with plain numbers are passed here.
    Errno::result(unsafe { libc::prctl(option, arg2, arg3, 0 as libc::c_ulong, 0 as libc::c_ulong) }).map(drop)
}

/// Forbids any gain of privileges by executing a file.
pub(crate) fn set_no_new_privileges() -> Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).doing(|| "no_new_privs")
}

/// Becomes `identity` with exactly `capabilities` (none given: those of this process, for root).
pub(crate) fn become_identity(identity: &Identity, capabilities: Option<CapabilitySets>) -> Result<()> {
    if let Some(sets) = capabilities {
        for bit in 0..CAPABILITIES.len() {
            if sets.bounding & (1 << bit) == 0 {
                match prctl(libc::PR_CAPBSET_DROP, bit as libc::c_ulong, 0) {
                    // A number that this kernel does not have.
                    Ok(()) | Err(Errno::EINVAL) => {}
                    Err(errno) => return Err(errno).doing(|| "bounding set"),
                }
            }
        }
    }
    let mut groups: Vec<Gid> = vec![Gid::from_raw(identity.gid)];
    groups.extend(identity.groups.iter().filter(|gid| **gid != identity.gid).map(|gid| Gid::from_raw(*gid)));
    prctl(libc::PR_SET_KEEPCAPS, 1, 0).doing(|| "keepcaps")?;
    nix::unistd::setgroups(&groups).doing(|| "setgroups")?;
    let gid = Gid::from_raw(identity.gid);
    nix::unistd::setresgid(gid, gid, gid).doing(|| format!("setgid {gid}"))?;
    let uid = Uid::from_raw(identity.uid);
    nix::unistd::setresuid(uid, uid, uid).doing(|| format!("setuid {uid}"))?;
    prctl(libc::PR_SET_KEEPCAPS, 0, 0).doing(|| "keepcaps")?;
    if let Some(sets) = capabilities {
        set_capabilities(sets)?;
    }
    Ok(())
}

fn set_capabilities(sets: CapabilitySets) -> Result<()> {
    let header = CapabilityHeader { version: LINUX_CAPABILITY_VERSION_3, pid: 0 };
    let word = |set: u64, index: usize| (set >> (32 * index)) as u32;
    let mut data = [CapabilityData { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: version 3 writes two data elements.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &header, data.as_mut_ptr()) }).doing(|| "capget")?;
    let held = u64::from(data[0].permitted) | u64::from(data[1].permitted) << 32;
    // What this machine does not have cannot be given; the rest is.
    for (index, element) in data.iter_mut().enumerate() {
        element.permitted = word(sets.permitted & held, index);
        element.effective = word(sets.effective & sets.permitted & held, index);
        element.inheritable = word(sets.inheritable & held, index);
    }
    // SAFETY: version 3 reads two data elements.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &header, data.as_ptr()) }).doing(|| "capset")?;
    for bit in 0..CAPABILITIES.len() {
        if sets.ambient & sets.inheritable & sets.permitted & held & (1 << bit) != 0 {
            prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong, bit as libc::c_ulong)
                .doing(|| "ambient capabilities")?;
        }
    }
    Ok(())
}

/// Sets the resource limits of this process.
pub(crate) fn set_rlimits(limits: &[RlimitSpec]) -> Result<()> {
    for limit in limits {
        let kind =
            rlimit_kind(&limit.kind).ok_or_else(|| invalid(format!("{} is not a resource limit", limit.kind)))?;
        let value = libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard };
        // SAFETY: setrlimit reads one rlimit.
        Errno::result(unsafe { libc::setrlimit(kind, &value) })
            .doing(|| format!("{} = {}:{}", limit.kind, limit.soft, limit.hard))?;
    }
    Ok(())
}

fn rlimit_kind(name: &str) -> Option<libc::__rlimit_resource_t> {
    Some(match name {
        "RLIMIT_AS" => libc::RLIMIT_AS,
        "RLIMIT_CORE" => libc::RLIMIT_CORE,
        "RLIMIT_CPU" => libc::RLIMIT_CPU,
        "RLIMIT_DATA" => libc::RLIMIT_DATA,
        "RLIMIT_FSIZE" => libc::RLIMIT_FSIZE,
        "RLIMIT_LOCKS" => libc::RLIMIT_LOCKS,
        "RLIMIT_MEMLOCK" => libc::RLIMIT_MEMLOCK,
        "RLIMIT_MSGQUEUE" => libc::RLIMIT_MSGQUEUE,
        "RLIMIT_NICE" => libc::RLIMIT_NICE,
        "RLIMIT_NOFILE" => libc::RLIMIT_NOFILE,
        "RLIMIT_NPROC" => libc::RLIMIT_NPROC,
        "RLIMIT_RSS" => libc::RLIMIT_RSS,
        "RLIMIT_RTPRIO" => libc::RLIMIT_RTPRIO,
        "RLIMIT_RTTIME" => libc::RLIMIT_RTTIME,
        "RLIMIT_SIGPENDING" => libc::RLIMIT_SIGPENDING,
        "RLIMIT_STACK" => libc::RLIMIT_STACK,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capability_names_become_bits_and_unknown_ones_are_left_out() {
        let names = ["CAP_CHOWN", "CAP_CHECKPOINT_RESTORE", "CAP_OF_THE_FUTURE"].map(str::to_owned);
        assert_eq!(mask(&names), 1 | 1 << 40);
        assert_eq!(mask(&["CAP_NET_BIND_SERVICE".to_owned()]), 1 << 10);
    }

    #[test]
    fn an_unknown_limit_is_refused_by_name() {
        let limits = [RlimitSpec { kind: "RLIMIT_X".into(), soft: 1, hard: 1 }];
        assert_eq!(set_rlimits(&limits).unwrap_err().message, "RLIMIT_X is not a resource limit");
    }
}
