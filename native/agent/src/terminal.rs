//! Pseudo-terminals: made inside the container (its own devpts), the master ends up in the agent.

use crate::failure::{Doing, Result};
use crate::in_root::{ensure_file, handle_path, open_path};
use bulkhead_protocol::Resize;
use nix::fcntl::{OFlag, openat};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

/// Both ends of a terminal.
pub(crate) struct Terminal {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

/// Makes a terminal in the devpts that is mounted at `dev/pts` of the root.
pub(crate) fn open_terminal(root: BorrowedFd<'_>, size: Option<Resize>) -> Result<Terminal> {
    let directory = open_path(root, Path::new("/dev/pts")).doing(|| "/dev/pts")?;
    let master = openat(&directory, "ptmx", OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC, Mode::empty())
        .doing(|| "/dev/pts/ptmx")?;
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    nix::errno::Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &unlocked) })
        .doing(|| "unlocking the terminal")?;
    if let Some(size) = size {
        set_size(&master, size)?;
    }
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags by value and returns a new descriptor.
    let slave = nix::errno::Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })
        .doing(|| "opening the terminal")?;
    // SAFETY: the descriptor was just returned and belongs to nobody else.
    let slave = unsafe { OwnedFd::from_raw_fd(slave) };
    Ok(Terminal { master, slave })
}

/// Puts the terminal at /dev/console of the root, by a bind mount.
pub(crate) fn mount_console(root: BorrowedFd<'_>, slave: &OwnedFd) -> Result<()> {
    let target = ensure_file(root, Path::new("/dev/console"))?;
    mount(
        Some(handle_path(slave).as_str()),
        handle_path(&target).as_str(),
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .doing(|| "/dev/console")
}

/// Sets the size that programs see, and tells them (SIGWINCH).
pub(crate) fn set_size(master: &OwnedFd, size: Resize) -> Result<()> {
    let size = libc::winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize.
    nix::errno::Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &size) })
        .doing(|| "resizing the terminal")?;
    Ok(())
}

/// Makes the terminal on standard input the controlling one of this session.
pub(crate) fn take_control() -> Result<()> {
    // SAFETY: TIOCSCTTY takes a plain number.
    nix::errno::Errno::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })
        .doing(|| "making the terminal the controlling one")?;
    Ok(())
}
