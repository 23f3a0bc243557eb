//! A thread that serves devices: it sleeps until a queue is notified or a device's own descriptor is ready.

use crate::error::{Error, Result};
use crate::threads::{ThreadKind, ThreadStart, spawn};
use crate::virtio::device::Work;
use crate::virtio::transport::Transport;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Events that one wait takes.
const EVENTS_MAX: usize = 32;
/// The event of the thread's own wake-up.
const WAKE: u64 = u64::MAX;
/// Set in an event's number where it is a device's own descriptor, not a queue.
const SOURCE: u64 = 1 << 31;

enum Command {
    /// Nothing is touched until the next `Resume`.
    Pause(Sender<()>),
    /// Everything is looked at once: what was missed while paused.
    Resume,
    /// A device has other descriptors.
    Refresh(usize),
    End,
}

/// The machine's end of such a thread.
pub(crate) struct IoThread {
    thread: Option<JoinHandle<()>>,
    commands: Sender<Command>,
    wake: Arc<EventFd>,
}

struct Server {
    epoll: Epoll,
    wake: Arc<EventFd>,
    transports: Vec<Arc<Transport>>,
    commands: Receiver<Command>,
}

impl IoThread {
    /// Starts it, paused.
    pub(crate) fn start(
        kind: ThreadKind,
        name: &str,
        transports: Vec<Arc<Transport>>,
        start: &ThreadStart,
    ) -> Result<Self> {
        let failed = |cause| Error::system(format!("the thread {name}"), cause);
        let wake = Arc::new(EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map_err(failed)?);
        let (commands, receiver) = channel();
        let server =
            Server { epoll: Epoll::new().map_err(failed)?, wake: Arc::clone(&wake), transports, commands: receiver };
        server.register(server.wake.as_raw_fd(), EventSet::IN, WAKE).map_err(failed)?;
        for (index, transport) in server.transports.iter().enumerate() {
            for (queue, event) in transport.events.iter().enumerate() {
                let number = (index as u64) << 32 | queue as u64;
                // Edge-triggered: the counter need not be read.
                server.register(event.as_raw_fd(), EventSet::IN | EventSet::EDGE_TRIGGERED, number).map_err(failed)?;
            }
            server.register_sources(index).map_err(failed)?;
        }
        let thread = spawn(kind, name.into(), start, move || server.run())?;
        Ok(Self { thread: Some(thread), commands, wake })
    }

    fn tell(&self, command: Command) {
        let _ = self.commands.send(command);
        let _ = self.wake.write(1);
    }

    /// Returns when the thread touches nothing any more.
    pub(crate) fn pause(&self) {
        let (done, wait) = channel();
        self.tell(Command::Pause(done));
        let _ = wait.recv();
    }

    pub(crate) fn resume(&self) {
        self.tell(Command::Resume);
    }

    /// The descriptors of the device at this place in the thread's list are others now.
    pub(crate) fn refresh(&self, index: usize) {
        self.tell(Command::Refresh(index));
    }

    pub(crate) fn end(&mut self) {
        self.tell(Command::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Server {
    fn register(&self, fd: RawFd, events: EventSet, number: u64) -> std::io::Result<()> {
        self.epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(events, number))
    }

    fn register_sources(&self, index: usize) -> std::io::Result<()> {
        let Some(transport) = self.transports.get(index) else { return Ok(()) };
        for (source, fd) in transport.sources().into_iter().enumerate().filter(|(_, fd)| *fd >= 0) {
            let number = (index as u64) << 32 | SOURCE | source as u64;
            let events = EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
            match self.register(fd, events, number) {
                Err(cause) if cause.kind() == std::io::ErrorKind::AlreadyExists => {}
                result => result?,
            }
        }
        Ok(())
    }

    fn run(self) {
        if self.wait_for_resume() {
            return;
        }
        let mut events = [EpollEvent::default(); EVENTS_MAX];
        loop {
            let count = match self.epoll.wait(-1, &mut events) {
                Ok(count) => count,
                Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => continue,
                // A descriptor of our own that is none any more: nothing that could go on.
                Err(_) => std::process::abort(),
            };
            for event in &events[..count] {
                if event.data() == WAKE {
                    let _ = self.wake.read();
                    if self.obey() {
                        return;
                    }
                    continue;
                }
                let number = event.data() as u32 as usize & !(SOURCE as usize);
                let work = if event.data() & SOURCE == 0 { Work::Queue(number) } else { Work::Source(number) };
                if let Some(transport) = self.transports.get((event.data() >> 32) as usize) {
                    transport.process(work);
                }
            }
        }
    }

    /// Obeys what was said; true to end.
    fn obey(&self) -> bool {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::End => return true,
                Command::Resume => {}
                Command::Refresh(index) => self.refresh(index),
                Command::Pause(done) => {
                    let _ = done.send(());
                    if self.wait_for_resume() {
                        return true;
                    }
                }
            }
        }
        false
    }

    fn refresh(&self, index: usize) {
        let _ = self.register_sources(index);
        if let Some(transport) = self.transports.get(index) {
            transport.process_everything();
        }
    }

    /// Waits until it may go on; true to end.
    fn wait_for_resume(&self) -> bool {
        loop {
            match self.commands.recv() {
                Err(_) | Ok(Command::End) => return true,
                Ok(Command::Pause(done)) => {
                    let _ = done.send(());
                }
                Ok(Command::Refresh(index)) => drop(self.register_sources(index)),
                Ok(Command::Resume) => break,
            }
        }
        self.transports.iter().for_each(|transport| transport.process_everything());
        false
    }
}
