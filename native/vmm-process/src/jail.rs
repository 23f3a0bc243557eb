//! The jail: what the process gives up before it looks at anything that a guest or an image had a hand in.

use serde::Deserialize;
use std::collections::BTreeSet;
use std::ffi::CStr;
use std::io;
use std::os::fd::RawFd;

/// Who the process becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JailSpec {
    /// User, which no other process has.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Descriptors that may come with a monitor's request, beside the machine's own.
const SPARE_DESCRIPTORS: u64 = 512;

fn check(result: libc::c_int, what: &str) -> Result<(), String> {
    if result < 0 { Err(format!("{what}: {}", io::Error::last_os_error())) } else { Ok(()) }
}

/// Closes every descriptor but the first three and those to keep.
pub fn close_others(keep: &BTreeSet<RawFd>) -> Result<(), String> {
    let mut first = 3;
    for fd in keep.iter().copied().filter(|fd| *fd >= 3).chain([RawFd::MAX]) {
        if fd > first {
            // SAFETY: descriptors that nothing here has taken over yet.
            let result =
                unsafe { libc::syscall(libc::SYS_close_range, first as libc::c_uint, (fd - 1) as libc::c_uint, 0) };
            check(result as libc::c_int, "close_range")?;
        }
        first = fd.saturating_add(1);
    }
    Ok(())
}

fn limit(resource: libc::__rlimit_resource_t, most: u64, what: &str) -> Result<(), String> {
    let value = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: setrlimit reads one rlimit.
    check(unsafe { libc::setrlimit(resource, &value) }, what)
}

/// Limits, no new privileges, nothing to be dumped: for every process, in a jail or not.
pub fn restrict() -> Result<(), String> {
    limit(libc::RLIMIT_CORE, 0, "RLIMIT_CORE")?;
    limit(libc::RLIMIT_NOFILE, 256 + SPARE_DESCRIPTORS, "RLIMIT_NOFILE")?;
    // SAFETY: plain numbers.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }, "PR_SET_DUMPABLE")?;
    // SAFETY: plain numbers.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, "PR_SET_NO_NEW_PRIVS")
}

/// Own namespaces, an empty root, another user who has so many threads at most. Nothing is left to be opened by name.
pub fn enter(spec: JailSpec, threads: u64) -> Result<(), String> {
    limit(libc::RLIMIT_NPROC, threads, "RLIMIT_NPROC")?;
    let namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    // SAFETY: the process has one thread.
    check(unsafe { libc::unshare(namespaces) }, "own namespaces")?;
    leave_root()?;
    // SAFETY: no groups are read.
    check(unsafe { libc::setgroups(0, std::ptr::null()) }, "no further groups")?;
    // SAFETY: plain numbers.
    check(unsafe { libc::setresgid(spec.gid, spec.gid, spec.gid) }, "group")?;
    // SAFETY: plain numbers; as a user that is not root the process has no capabilities.
    check(unsafe { libc::setresuid(spec.uid, spec.uid, spec.uid) }, "user")
}

fn leave_root() -> Result<(), String> {
    let mount = |source: Option<&CStr>, target: &CStr, kind: Option<&CStr>, flags, data: Option<&CStr>, what| {
        let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: zero-terminated strings, or none.
        check(
            unsafe { libc::mount(pointer(source), target.as_ptr(), pointer(kind), flags, pointer(data).cast()) },
            what,
        )
    };
    mount(None, c"/", None, libc::MS_REC | libc::MS_PRIVATE, None, "mounts of one's own")?;
    let plain = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // Every system has a /proc to mount on, in a namespace that nobody else sees.
    let size = Some(c"size=4k,nr_inodes=2,mode=0555");
    mount(Some(c"none"), c"/proc", Some(c"tmpfs"), plain, size, "an empty root")?;
    // SAFETY: zero-terminated strings.
    check(unsafe { libc::chdir(c"/proc".as_ptr()) }, "the empty root")?;
    // SAFETY: zero-terminated strings. Old and new root in one place: the old one is on top and is taken away.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) } as libc::c_int, "pivot_root")?;
    // SAFETY: as above.
    check(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) }, "leaving the old root")?;
    // SAFETY: as above.
    check(unsafe { libc::chdir(c"/".as_ptr()) }, "the empty root")?;
    mount(
        None,
        c"/",
        None,
        libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | plain,
        None,
        "a root that is only read",
    )
}
