//! What the machine process is put into between fork and exec: a root of its own with nothing but what QEMU loads, empty network
//! and IPC namespaces, its cgroup, an unprivileged user, no capabilities and no way to get any.
//!
//! No process namespace: the machine's user runs nothing else, its root has no /proc, and QEMU's own sandbox denies it to
//! start processes.

use crate::vm::ram_file;
use bulkhead_protocol::{Failure, FailureCode};
use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

const OPEN_FILES_MAX: libc::rlim_t = 1024;
/// Size of the scratch disk's file system (vm-images/scratch/build-scratch): the device itself is 1 TiB, and a guest kernel that its
/// container has taken over could otherwise fill the host's disk through it.
const FILE_BYTES_MAX: libc::rlim_t = 10 * 1024 * 1024 * 1024;
/// Guest CPUs, the I/O threads of the block layer (64), and QEMU's own. A fork bomb needs more.
pub const THREADS_MAX: u32 = 512;

/// Capability numbers end far below; the kernel refuses unknown ones.
const CAPABILITIES_MAX: libc::c_ulong = 63;

enum Entry {
    Directory(CString),
    /// An empty file to mount on.
    File(CString),
    Symlink {
        target: CString,
        path: CString,
    },
    /// Source on the host, path in the jail, further flags.
    Bind {
        source: CString,
        path: CString,
        flags: libc::c_ulong,
    },
    /// A character device, owned by the machine's user alone, whatever owner and mode the host has for it.
    Device {
        path: CString,
        device: libc::dev_t,
    },
}

/// A jail, ready to be entered by a forked child: everything is allocated, opened and looked up.
pub struct Jail {
    root: CString,
    entries: Vec<Entry>,
    cgroup_procs: Vec<OwnedFd>,
    keep: Vec<RawFd>,
    ram_socket: Option<RawFd>,
    uid: libc::uid_t,
}

/// What a jail is made for.
pub struct JailSpec<'a> {
    /// Empty directory that becomes the mount point of the root.
    pub root: &'a Path,
    /// The program, with links resolved.
    pub program: &'a Path,
    /// Files: path on the host, path in the jail.
    pub files: &'a [(&'a str, &'a str)],
    /// Whether /dev/kvm is wanted.
    pub kvm: bool,
    /// User and group.
    pub uid: u32,
    /// `cgroup.procs` files, open for writing.
    pub cgroup_procs: Vec<OwnedFd>,
    /// Descriptors that the program inherits; all others but 0, 1 and 2 are closed.
    pub keep: Vec<RawFd>,
    /// Where the listener for the RAM file's open is sent, if there is such a file.
    pub ram_socket: Option<RawFd>,
}

fn failed(message: String) -> Failure {
    Failure::new(FailureCode::MachineFailed, message)
}

fn c_string(path: &Path) -> Result<CString, Failure> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| failed(format!("{} has a zero byte", path.display())))
}

/// Collects entries, each with the directories above it.
#[derive(Default)]
struct Tree {
    directories: BTreeSet<PathBuf>,
    entries: Vec<Entry>,
}

impl Tree {
    fn directory(&mut self, path: &Path) -> Result<(), Failure> {
        let mut missing: Vec<&Path> =
            path.ancestors().filter(|above| above.parent().is_some() && !self.directories.contains(*above)).collect();
        missing.reverse();
        for above in missing {
            self.directories.insert(above.to_owned());
            self.entries.push(Entry::Directory(in_jail(above)?));
        }
        Ok(())
    }

    fn bind(&mut self, source: &Path, path: &Path, flags: libc::c_ulong) -> Result<(), Failure> {
        if source.is_dir() {
            self.directory(path)?;
        } else {
            self.directory(path.parent().unwrap_or(path))?;
            self.entries.push(Entry::File(in_jail(path)?));
        }
        self.entries.push(Entry::Bind { source: c_string(source)?, path: in_jail(path)?, flags });
        Ok(())
    }
}

/// Paths in the jail are relative to its root, which is the working directory while it is built.
fn in_jail(path: &Path) -> Result<CString, Failure> {
    c_string(path.strip_prefix("/").unwrap_or(path))
}

impl Jail {
    /// Plans the jail.
    pub fn plan(spec: JailSpec<'_>) -> Result<Self, Failure> {
        let mut tree = Tree::default();
        tree.bind(spec.program, spec.program, 0)?;
        // The program's own prefix, and the system's for the shared libraries.
        let prefix = spec.program.parent().and_then(Path::parent).unwrap_or(Path::new("/usr"));
        let prefixes: BTreeSet<&Path> = BTreeSet::from([Path::new("/usr"), prefix]);
        for prefix in prefixes {
            for (part, flags) in
                [("lib", 0), ("lib64", 0), ("share/qemu", libc::MS_NOEXEC), ("share/seabios", libc::MS_NOEXEC)]
            {
                let path = prefix.join(part);
                if path.is_dir() && prefix != Path::new("/") {
                    tree.bind(&path, &path, flags)?;
                }
            }
        }
        for name in ["/lib", "/lib64"].map(Path::new) {
            match fs::read_link(name) {
                Ok(target) => {
                    tree.entries.push(Entry::Symlink { target: c_string(&target)?, path: in_jail(name)? });
                }
                Err(_) if name.is_dir() => tree.bind(name, name, 0)?,
                Err(_) => {}
            }
        }
        let cache = Path::new("/etc/ld.so.cache");
        if cache.exists() {
            tree.bind(cache, cache, libc::MS_NOEXEC)?;
        }
        for (source, path) in spec.files {
            tree.bind(Path::new(source), Path::new(path), libc::MS_NOEXEC)?;
        }
        tree.directory(Path::new("/dev"))?;
        // QEMU tries its file locks out on /dev/null.
        tree.entries.push(Entry::Device { path: in_jail(Path::new("/dev/null"))?, device: libc::makedev(1, 3) });
        if spec.kvm {
            let facts = fs::metadata("/dev/kvm")
                .map_err(|error| failed(format!("/dev/kvm: {error}; use the accelerator tcg on this host")))?;
            let device = std::os::unix::fs::MetadataExt::rdev(&facts);
            tree.entries.push(Entry::Device { path: in_jail(Path::new("/dev/kvm"))?, device });
        }
        Ok(Self {
            root: c_string(spec.root)?,
            entries: tree.entries,
            cgroup_procs: spec.cgroup_procs,
            keep: spec.keep,
            ram_socket: spec.ram_socket,
            uid: spec.uid,
        })
    }

    /// Puts the calling process into the jail. Only for a forked child before exec: it allocates nothing and takes no
    /// lock. The step that failed is named on stderr, for only an error number gets through to the parent.
    pub fn enter(&self) -> io::Result<()> {
        self.enter_or_step().map_err(|(step, error)| {
            say(c"jail: ");
            say(step);
            say(c" failed\n");
            error
        })
    }

    fn enter_or_step(&self) -> Result<(), (&CStr, io::Error)> {
        for procs in &self.cgroup_procs {
            // SAFETY: the buffer is a constant of that length.
            let written = unsafe { libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) };
            check(c"joining the cgroup", i64::from(written == 1) - 1)?;
        }
        let namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        // SAFETY: no memory is shared by these namespaces.
        check(c"unshare", unsafe { libc::unshare(namespaces) })?;
        self.build_root()?;
        limit(libc::RLIMIT_NOFILE, OPEN_FILES_MAX)?;
        limit(libc::RLIMIT_CORE, 0)?;
        limit(libc::RLIMIT_NPROC, libc::rlim_t::from(THREADS_MAX))?;
        // A write beyond it fails with EFBIG, which the guest sees as an I/O error, instead of ending the machine.
        // SAFETY: the signal is ignored, also after exec; no handler is involved.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        limit(libc::RLIMIT_FSIZE, FILE_BYTES_MAX)?;
        for capability in 0..=CAPABILITIES_MAX {
            // An unknown number is refused, and one that is not in the set is no loss.
            // SAFETY: prctl with scalar arguments.
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        }
        // From root to another user: the kernel clears all capability sets.
        // SAFETY: scalar arguments and an empty list.
        unsafe {
            check(c"setgroups", libc::setgroups(0, std::ptr::null()))?;
            check(c"setresgid", libc::setresgid(self.uid, self.uid, self.uid))?;
            check(c"setresuid", libc::setresuid(self.uid, self.uid, self.uid))?;
            check(c"no_new_privs", libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            let all = libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed());
            check(c"close_range", all)?;
        }
        for fd in &self.keep {
            // SAFETY: scalar arguments.
            check(c"keeping a descriptor", unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) })?;
        }
        if let Some(socket) = self.ram_socket {
            ram_file::install(socket).map_err(|error| (c"the RAM file's filter", error))?;
        }
        Ok(())
    }

    fn build_root(&self) -> Result<(), (&CStr, io::Error)> {
        let none = std::ptr::null();
        let root = self.root.as_ptr();
        let dot = c".".as_ptr();
        // SAFETY: every pointer is a C string that lives in `self` or in the program, or null where mount(2) ignores it.
        unsafe {
            let private = libc::MS_REC | libc::MS_PRIVATE;
            check(c"making mounts private", libc::mount(none, c"/".as_ptr(), none, private, none.cast()))?;
            let options = c"size=64k,nr_inodes=256,mode=755".as_ptr();
            let flags = libc::MS_NOSUID | libc::MS_NOEXEC;
            check(
                c"mounting the root",
                libc::mount(c"tmpfs".as_ptr(), root, c"tmpfs".as_ptr(), flags, options.cast()),
            )?;
            check(c"entering the root", libc::chdir(root))?;
            libc::umask(0o022);
            for entry in &self.entries {
                self.make(entry)?;
            }
            // The old root is stacked on the new one's mount point and taken off it (pivot_root(2), NOTES).
            check(c"pivot_root", libc::syscall(libc::SYS_pivot_root, dot, dot))?;
            check(c"unmounting the host's root", libc::umount2(dot, libc::MNT_DETACH))?;
            check(c"chdir", libc::chdir(c"/".as_ptr()))?;
            let read_only = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | flags;
            check(c"making the root read-only", libc::mount(none, c"/".as_ptr(), none, read_only, none.cast()))?;
        }
        Ok(())
    }

    fn make<'a>(&self, entry: &'a Entry) -> Result<(), (&'a CStr, io::Error)> {
        let none = std::ptr::null::<libc::c_char>();
        // SAFETY: every pointer is a C string that lives in `entry`, or null where mount(2) ignores it.
        unsafe {
            match entry {
                Entry::Directory(path) => check(path, libc::mkdir(path.as_ptr(), 0o755)),
                Entry::File(path) => check(path, libc::mknod(path.as_ptr(), libc::S_IFREG | 0o644, 0)),
                Entry::Symlink { target, path } => check(path, libc::symlink(target.as_ptr(), path.as_ptr())),
                Entry::Bind { source, path, flags } => {
                    check(source, libc::mount(source.as_ptr(), path.as_ptr(), none, libc::MS_BIND, none.cast()))?;
                    // A bind mount takes its flags only in a second step.
                    let flags =
                        libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | flags;
                    check(path, libc::mount(none, path.as_ptr(), none, flags, none.cast()))
                }
                Entry::Device { path, device } => {
                    check(path, libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o600, *device))?;
                    check(path, libc::chown(path.as_ptr(), self.uid, self.uid))
                }
            }
        }
    }
}

fn check<N: Into<i64>>(step: &CStr, result: N) -> Result<(), (&CStr, io::Error)> {
    if result.into() < 0 { Err((step, io::Error::last_os_error())) } else { Ok(()) }
}

fn limit(resource: libc::__rlimit_resource_t, value: libc::rlim_t) -> Result<(), (&'static CStr, io::Error)> {
    let limits = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: the struct lives over the call.
    check(c"setrlimit", unsafe { libc::setrlimit(resource, &raw const limits) })
}

fn say(text: &CStr) {
    // SAFETY: the buffer is a C string of that length.
    unsafe { libc::write(2, text.as_ptr().cast(), text.count_bytes()) };
}
