//! The first milliseconds of a guest: what PID 1 of an initramfs has to set up before anything else works.

use crate::failure::{Doing, Result, errno_of};
use bulkhead_protocol::{Failure, FailureCode};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Kernel modules, and the file that lists them in the order of their loading.
const MODULES: &str = "/modules";

/// Open files that a container may have; Docker's default.
const MAX_OPEN_FILES: u64 = 1 << 20;

/// From linux/module.h.
const MODULE_INIT_COMPRESSED_FILE: libc::c_int = 4;

/// Sets the guest up.
pub(crate) fn boot() -> Result<()> {
    leave_first_root()?;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_at("devtmpfs", "/dev", MsFlags::MS_NOSUID, "mode=0755")?;
    open_console();
    mount_at("proc", "/proc", plain, "")?;
    mount_at("sysfs", "/sys", plain, "")?;
    mount_at("tmpfs", "/run", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=0755")?;
    mount_at("devpts", "/dev/pts", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666")?;
    mount_at("cgroup2", crate::cgroup::CGROUP_MOUNT, plain, "")?;
    check_timer()?;
    load_modules();
    let files = libc::rlimit { rlim_cur: MAX_OPEN_FILES, rlim_max: MAX_OPEN_FILES };
    // SAFETY: setrlimit reads one rlimit.
    Errno::result(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &files) }).doing(|| "RLIMIT_NOFILE")?;
    Ok(())
}

/// pivot_root(2) refuses to replace the kernel's first root file system, so everything moves to a mount on top of it.
fn leave_first_root() -> Result<()> {
    make_directory("/m")?;
    mount(Some("/"), "/m", None::<&str>, MsFlags::MS_BIND, None::<&str>).doing(|| "/m")?;
    nix::unistd::chdir("/m").doing(|| "/m")?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).doing(|| "moving the root")?;
    nix::unistd::chroot(".").doing(|| "entering the root")
}

fn make_directory(path: &str) -> Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if errno_of(&error) != Errno::EEXIST => Err(error).doing(|| path),
        _ => Ok(()),
    }
}

fn mount_at(kind: &str, path: &str, flags: MsFlags, data: &str) -> Result<()> {
    make_directory(path)?;
    match mount(Some(kind), path, Some(kind), flags, Some(data)) {
        // The kernel may have mounted devtmpfs itself.
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(errno) => Err(errno).doing(|| format!("mounting {path}")),
    }
}

/// Gives this process standard streams: the console, or nothing where there is none.
fn open_console() {
    let open = |path: &str| std::fs::File::options().read(true).write(true).open(path);
    let Ok(console) = open("/dev/console").or_else(|_| open("/dev/null")) else { return };
    for target in 0..3 {
        if console.as_raw_fd() != target {
            // SAFETY: an open descriptor, and numbers that nothing uses yet.
            unsafe { libc::dup2(console.as_raw_fd(), target) };
        }
    }
    if console.as_raw_fd() <= 2 {
        std::mem::forget(console);
    }
}

/// Says something on the console. Only errors are worth it: a console is slow.
pub(crate) fn complain(message: &str) {
    // The kernel's log reaches the console at once. What a terminal still has in its buffer when the machine ends is lost.
    let logged = std::process::id() == 1
        && std::fs::File::options()
            .write(true)
            .open("/dev/kmsg")
            .and_then(|mut log| log.write_all(format!("<2>bulkhead-agent: {message}\n").as_bytes()))
            .is_ok();
    if !logged {
        let _ = writeln!(std::io::stderr(), "bulkhead-agent: {message}");
    }
}

/// Refuses a guest without a timer: input and output would work, and everything that waits (a throttled process, an RCU
/// grace period in an unmount) would never go on.
///
/// It happens. Linux measures the local APIC's timer against the time stamp counter for 100 ms; where the host takes an
/// emulated CPU away just then, it measures nothing ("APIC frequency too slow, disabling apic timer") and microvm has no
/// other timer. Seen in 4 of 68 boots on a host with a load of 10 on two CPUs. Only a new start helps.
fn check_timer() -> Result<()> {
    match std::fs::read_to_string("/sys/devices/system/clockevents/clockevent0/current_device") {
        Ok(name) if name.trim().is_empty() => Err(Failure::new(
            FailureCode::MachineFailed,
            "the kernel could not calibrate a timer (the host is overloaded); start the machine again",
        )),
        _ => Ok(()),
    }
}

fn load_modules() {
    let Ok(order) = std::fs::read_to_string(Path::new(MODULES).join("order")) else { return };
    for name in order.lines().map(str::trim).filter(|name| !name.is_empty() && !name.starts_with('#')) {
        // EEXIST: loaded or built in. What a machine cannot do without is missed soon enough, and by name.
        if let Err(errno) = load_module(name)
            && errno != Errno::EEXIST
        {
            complain(&format!("module {name}: {errno}"));
        }
    }
}

fn load_module(name: &str) -> nix::Result<()> {
    let file = std::fs::File::open(Path::new(MODULES).join(name)).map_err(|error| errno_of(&error))?;
    let flags = if name.ends_with(".ko") { 0 } else { MODULE_INIT_COMPRESSED_FILE };
    // SAFETY: an open descriptor and an empty parameter string.
    Errno::result(unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), flags) }).map(drop)
}

/// Ends the machine: a restart, which QEMU turns into its own end (`-no-reboot`), works with every guest kernel; a
/// power-off needs one with ACPI.
pub(crate) fn end_machine() -> ! {
    // SAFETY: a plain number; the machine ends here.
    unsafe { libc::reboot(libc::RB_AUTOBOOT) };
    std::process::abort()
}
