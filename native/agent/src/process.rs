//! One process of a container: its state, its standard streams, its end.

use crate::failure::{Doing, Result, errno_of, internal, wrong_state};
use crate::launch::{Launched, Report, ReportPipe, register, write_all};
use crate::moments::Moment;
use crate::output::{Output, Stream};
use crate::pump::{Gone, pump};
use crate::terminal;
use bulkhead_protocol::{Exit, Failure, FailureCode, Resize};
use nix::errno::Errno;
use std::cell::{Cell, RefCell};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Mutex, Notify};

type Fd = Rc<AsyncFd<OwnedFd>>;

/// A process, from its set-up on.
pub(crate) struct Process {
    /// For messages.
    name: String,
    pub(crate) pid: i32,
    pidfd: OwnedFd,
    pub(crate) output: Rc<Output>,
    /// Where a stdin body is written; empty once it was closed.
    stdin: Mutex<Option<Fd>>,
    terminal: RefCell<Option<Fd>>,
    /// Present until the start.
    waiting: RefCell<Option<(ReportPipe, OwnedFd)>>,
    started: Cell<bool>,
    gone: Rc<Gone>,
    exit: RefCell<Option<Exit>>,
    exited: Notify,
}

impl Process {
    /// Takes over a child; [`Process::ready`] waits until it has set itself up.
    pub(crate) fn new(name: String, launched: Launched) -> Result<Rc<Self>> {
        let process = Rc::new(Self {
            name,
            pid: launched.pid,
            pidfd: launched.pidfd,
            output: Rc::default(),
            stdin: Mutex::new(launched.stdin.map(register).transpose()?.map(Rc::new)),
            terminal: RefCell::new(None),
            waiting: RefCell::new(Some((launched.reports, launched.start))),
            started: Cell::new(false),
            gone: Rc::default(),
            exit: RefCell::new(None),
            exited: Notify::new(),
        });
        // One source stands for the process itself, so that the stream does not end before it does.
        process.output.add_source();
        for (stream, fd) in launched.outputs {
            process.pump(stream, Rc::new(register(fd)?));
        }
        Ok(process)
    }

    fn pump(&self, stream: Stream, fd: Fd) {
        self.output.add_source();
        tokio::task::spawn_local(pump(fd, stream, Rc::clone(&self.output), Rc::clone(&self.gone)));
    }

    /// Waits for the child's word that it is set up; tells when its steps were done.
    pub(crate) async fn ready(&self, keep_stdin: bool) -> Result<Vec<Moment>> {
        let Some((mut reports, start)) = self.waiting.take() else { return Err(wrong_state("already set up")) };
        match reports.next().await? {
            Some(Report::Ready { master, moments }) => {
                if let Some(number) = master {
                    let terminal = Rc::new(register(self.take_descriptor(number)?)?);
                    if keep_stdin {
                        *self.stdin.lock().await = Some(Rc::clone(&terminal));
                    }
                    *self.terminal.borrow_mut() = Some(Rc::clone(&terminal));
                    self.pump(Stream::Stdout, terminal);
                }
                *self.waiting.borrow_mut() = Some((reports, start));
                Ok(moments)
            }
            Some(Report::Failed(failure)) => Err(failure),
            None => Err(Failure::new(FailureCode::Internal, format!("{} died while it was being set up", self.name))),
        }
    }

    fn take_descriptor(&self, number: i32) -> Result<OwnedFd> {
        // SAFETY: takes numbers only and returns a new descriptor.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, self.pidfd.as_raw_fd(), number, 0) };
        let fd = Errno::result(fd).doing(|| "taking over the terminal")?;
        // SAFETY: the descriptor was just made and belongs to nobody else.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }

    /// Lets the program run; returns once it does, or with the reason why it cannot.
    pub(crate) async fn start(&self) -> Result<u32> {
        let Some((mut reports, start)) = self.waiting.take() else {
            return Err(wrong_state(format!("{} was started before", self.name)));
        };
        nix::unistd::write(&start, &[1]).map_err(|_| wrong_state(format!("{} has ended", self.name)))?;
        drop(start);
        match reports.next().await? {
            Some(Report::Failed(failure)) => Err(failure),
            _ => {
                self.started.set(true);
                Ok(self.pid.unsigned_abs())
            }
        }
    }

    /// Sends a signal.
    pub(crate) fn kill(&self, signal: i32) -> Result<()> {
        // SAFETY: numbers and a null pointer, which asks for the signal's default information.
        let sent = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.pidfd.as_raw_fd(), signal, std::ptr::null::<()>(), 0)
        };
        match Errno::result(sent) {
            Ok(_) => Ok(()),
            Err(Errno::ESRCH) => Err(wrong_state(format!("{} has ended", self.name))),
            Err(Errno::EINVAL) => Err(crate::failure::invalid(format!("{signal} is not a signal"))),
            Err(errno) => Err(internal(format!("signal {signal} to {}", self.name), errno)),
        }
    }

    /// Sets the terminal's size.
    pub(crate) fn resize(&self, size: Resize) -> Result<()> {
        match &*self.terminal.borrow() {
            Some(terminal) => terminal::set_size(terminal.get_ref(), size),
            None => Err(wrong_state(format!("{} has no terminal", self.name))),
        }
    }

    /// Writes to standard input. False when nobody reads it any more.
    pub(crate) async fn write_stdin(&self, bytes: &[u8]) -> Result<bool> {
        let stdin = self.stdin.lock().await;
        let Some(fd) = &*stdin else { return Ok(false) };
        tokio::select! {
            written = write_all(fd, bytes) => match written {
                Ok(()) => Ok(true),
                Err(error) if matches!(errno_of(&error), Errno::EPIPE | Errno::EIO) => Ok(false),
                Err(error) => Err(internal(format!("standard input of {}", self.name), errno_of(&error))),
            },
            () = self.wait_gone() => Ok(false),
        }
    }

    /// Closes standard input. A terminal stays: its end is not a state but a character, which is the user's to send.
    pub(crate) async fn close_stdin(&self) {
        self.stdin.lock().await.take();
    }

    /// The kernel says that it ended. `oom_killed` is asked once everything is over.
    pub(crate) fn ended(self: &Rc<Self>, exit_code: i32, oom_killed: bool) {
        let finished_at_ns = now_ns();
        self.gone.set();
        self.output.finish_source();
        let process = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let output_bytes = process.output.total_bytes().await;
            let exit = Exit { exit_code, oom_killed, finished_at_ns, error: String::new(), output_bytes };
            *process.exit.borrow_mut() = Some(exit);
            process.exited.notify_waiters();
        });
    }

    /// How it ended, once it has and all its output is in the buffer.
    pub(crate) fn exit(&self) -> Option<Exit> {
        self.exit.borrow().clone()
    }

    /// Waits for its end.
    pub(crate) async fn wait(&self) -> Exit {
        loop {
            let exited = self.exited.notified();
            if let Some(exit) = self.exit() {
                return exit;
            }
            exited.await;
        }
    }

    /// Waits until the kernel says that it ended, whatever became of its output.
    pub(crate) async fn wait_gone(&self) {
        self.gone.wait().await;
    }

    /// Whether the program has been let run.
    pub(crate) fn is_started(&self) -> bool {
        self.started.get()
    }
}

/// Wall clock.
fn now_ns() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
}
