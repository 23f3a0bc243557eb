//! The file behind a machine's RAM, handed to QEMU although it opens it by a path.
//!
//! A clone maps a template's RAM privately, so its writes never reach the file. But QEMU 7.2 opens a RAM file for reading and writing,
//! whatever the mapping, and a machine process that its guest has taken over must not be able to write what all others start
//! from. So there is no such file in the jail: the open is stopped by a seccomp filter, and this process answers it with a descriptor of its
//! own choice, read-only for clones (`SECCOMP_RET_USER_NOTIF`, seccomp_unotify(2)).

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt as _;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The name under which QEMU asks for it.
pub const RAM_IN_JAIL: &str = "/ram";

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
/// Offsets in `struct seccomp_data`: number, architecture, lower half of the third argument.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FLAGS: u32 = 32;
const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

const fn step(code: u16, yes: u8, no: u8, operand: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: yes, jf: no, k: operand }
}

/// Stops what opens a file for reading and writing; that is a handful of calls in QEMU's life.
static FILTER: [libc::sock_filter; 8] = [
    step(LOAD, 0, 0, ARCHITECTURE),
    step(EQUAL, 0, 5, AUDIT_ARCH_X86_64),
    step(LOAD, 0, 0, NUMBER),
    step(EQUAL, 0, 3, libc::SYS_openat as u32),
    step(LOAD, 0, 0, FLAGS),
    step(AND, 0, 0, libc::O_ACCMODE as u32),
    step(EQUAL, 1, 0, libc::O_RDWR as u32),
    step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
];
/// The jump above ends here.
static STOP: libc::sock_filter = step(RETURN, 0, 0, libc::SECCOMP_RET_USER_NOTIF);

/// Longest path that is read: enough to tell it from [`RAM_IN_JAIL`].
const PATH_BYTES_MAX: usize = 64;

nix::ioctl_readwrite!(notify_receive, b'!', 0, libc::seccomp_notif);
nix::ioctl_readwrite!(notify_send, b'!', 1, libc::seccomp_notif_resp);
nix::ioctl_write_ptr!(notify_id_valid, b'!', 2, u64);
nix::ioctl_write_ptr!(notify_add_fd, b'!', 3, libc::seccomp_notif_addfd);

/// Installs the filter in the calling process and sends its listener over a socket. Only for a forked child before exec: it
/// allocates nothing. The caller has set `no_new_privs`.
pub fn install(socket: RawFd) -> io::Result<()> {
    let mut steps = [STOP; 9];
    steps[..8].copy_from_slice(&FILTER);
    let program = libc::sock_fprog { len: 9, filter: steps.as_mut_ptr() };
    // SAFETY: the program is valid for the call, which copies it.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    let listener = RawFd::try_from(listener).map_err(|_| io::Error::from(Errno::EINVAL))?;
    if listener < 0 {
        return Err(io::Error::last_os_error());
    }
    send(socket, listener)
}

/// sendmsg(2) with one descriptor, from the stack.
fn send(socket: RawFd, fd: RawFd) -> io::Result<()> {
    #[repr(C, align(8))]
    struct Control([u8; 24]);
    let mut byte = 0_u8;
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut control = Control([0; 24]);
    // SAFETY: msghdr is plain data; all pointers outlive the call; the control buffer has exactly the room for one header and
    // one descriptor (CMSG_SPACE(4) = 24).
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = 24;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd);
        match libc::sendmsg(socket, &raw const message, libc::MSG_NOSIGNAL) {
            1 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Takes the listener that the child has sent: it is there once the child has executed its program.
pub fn receive(socket: RawFd) -> io::Result<OwnedFd> {
    let mut byte = [0_u8; 1];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut control = nix::cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket, &mut parts, Some(&mut control), flags)?;
    for item in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = item
            && let Some(fd) = fds.first()
        {
            // SAFETY: it was just received and belongs to nobody else.
            return Ok(unsafe { OwnedFd::from_raw_fd(*fd) });
        }
    }
    Err(io::Error::other("the child sent no descriptor"))
}

/// Answers the process's opens until it ends: [`RAM_IN_JAIL`] with `ram`, all others as the kernel would.
pub async fn serve(listener: OwnedFd, ram: OwnedFd) -> io::Result<()> {
    // SAFETY: the descriptor is owned by what is registered.
    let listener = unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) }.map_err(io::Error::from)?;
    loop {
        let mut guard = listener.readable().await?;
        if guard.ready().is_read_closed() {
            return Ok(());
        }
        guard.clear_ready();
        match answer(listener.get_ref().as_raw_fd(), &ram) {
            // The process died or was interrupted in its call.
            Ok(()) | Err(Errno::ENOENT | Errno::EINTR | Errno::EAGAIN) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn answer(listener: RawFd, ram: &OwnedFd) -> nix::Result<()> {
    // SAFETY: plain data; the kernel wants it zeroed.
    let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: a listener and a structure of the kernel's layout.
    unsafe { notify_receive(listener, &raw mut call) }?;
    let wanted = path_of(call.pid, call.data.args[1]);
    // The process may have died meanwhile and its number been given to another: then what was read means nothing.
    // SAFETY: as above.
    unsafe { notify_id_valid(listener, &raw const call.id) }?;
    if wanted.as_deref() == Some(RAM_IN_JAIL.as_bytes()) {
        let with = libc::seccomp_notif_addfd {
            id: call.id,
            flags: libc::SECCOMP_ADDFD_FLAG_SEND as u32,
            srcfd: ram.as_raw_fd() as u32,
            newfd: 0,
            newfd_flags: libc::O_CLOEXEC as u32,
        };
        // SAFETY: as above.
        return unsafe { notify_add_fd(listener, &raw const with) }.map(drop);
    }
    // The kernel looks at the path again: it finds what the jail has, and nothing depends on what was read here.
    let mut response = libc::seccomp_notif_resp {
        id: call.id,
        val: 0,
        error: 0,
        flags: libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
    };
    // SAFETY: as above.
    unsafe { notify_send(listener, &raw mut response) }.map(drop)
}

fn path_of(pid: u32, address: u64) -> Option<Vec<u8>> {
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut bytes = [0; PATH_BYTES_MAX];
    let count = memory.read_at(&mut bytes, address).ok()?;
    let end = bytes[..count].iter().position(|byte| *byte == 0)?;
    Some(bytes[..end].to_vec())
}
