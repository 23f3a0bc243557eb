//! A vCPU and its thread.
//!
//! The thread runs the guest until an exit that only it can end: an access to a device is answered at once, anything final is told to
//! the machine. Commands come over a channel; a signal takes the thread out of the guest to look there. The signal's handler sets
//! `immediate_exit` in the vCPU's own shared page, so a command that comes between the look and the next entry is not missed.

use crate::devices::{Bus, Outcome};
use crate::error::{Error, Result};
use crate::machine::{Ending, EndingReport};
use crate::state::VcpuState;
use crate::threads::{ThreadKind, ThreadStart, spawn};
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::cell::Cell;
use std::os::unix::thread::JoinHandleExt;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

/// What a vCPU's thread is told.
enum Command {
    Resume,
    /// Out of the guest, with what its last exit asked for done.
    Pause(Sender<()>),
    Save(Sender<Result<VcpuState>>),
    End,
}

/// The machine's end of a vCPU's thread.
pub(crate) struct VcpuThread {
    thread: Option<JoinHandle<()>>,
    commands: Sender<Command>,
    /// The thread's shared page is known to the signal's handler.
    listening: Arc<AtomicBool>,
}

thread_local! {
    static RUN_PAGE: Cell<*mut kvm_bindings::kvm_run> = const { Cell::new(null_mut()) };
}

fn kick_signal() -> libc::c_int {
    libc::SIGRTMIN()
}

extern "C" fn leave_guest(_signal: libc::c_int, _info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    RUN_PAGE.with(|page| {
        let page = page.get();
        if !page.is_null() {
            // SAFETY: the page is this thread's own vCPU's and mapped for as long as the cell points to it.
            unsafe { (&raw mut (*page).immediate_exit).write_volatile(1) };
        }
    });
}

/// Installs the handler of the signal that takes threads out of the guest; once for each process.
pub(crate) fn install_kick_handler() -> Result<()> {
    vmm_sys_util::signal::register_signal_handler(kick_signal(), leave_guest)
        .map_err(|cause| Error::system("the vCPUs' signal", cause.into()))
}

impl VcpuThread {
    /// Starts the thread; its vCPU is paused.
    pub(crate) fn start(
        index: u32,
        vcpu: VcpuFd,
        bus: Arc<Bus>,
        ending: EndingReport,
        start: &ThreadStart,
    ) -> Result<Self> {
        let (commands, receiver) = channel();
        let listening = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&listening);
        let thread = spawn(ThreadKind::Vcpu, format!("vcpu{index}"), start, move || {
            let mut runner = Runner { index, vcpu, bus, ending, commands: receiver };
            RUN_PAGE.with(|page| page.set(std::ptr::from_mut(runner.vcpu.get_kvm_run())));
            told.store(true, Ordering::Release);
            runner.obey();
            RUN_PAGE.with(|page| page.set(null_mut()));
        })?;
        Ok(Self { thread: Some(thread), commands, listening })
    }

    pub(crate) fn resume(&self) {
        let _ = self.commands.send(Command::Resume);
    }

    /// Begins a pause; the receiver hears when it is reached.
    pub(crate) fn pause(&self) -> Receiver<()> {
        let (done, wait) = channel();
        let _ = self.commands.send(Command::Pause(done));
        self.kick();
        wait
    }

    /// State of a paused vCPU.
    pub(crate) fn save(&self) -> Result<VcpuState> {
        let (done, wait) = channel();
        let _ = self.commands.send(Command::Save(done));
        wait.recv().map_err(|_| Error::State("a vCPU's thread is gone".into()))?
    }

    pub(crate) fn end(&mut self) {
        let _ = self.commands.send(Command::End);
        self.kick();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    fn kick(&self) {
        if let Some(thread) = &self.thread
            && self.listening.load(Ordering::Acquire)
        {
            // SAFETY: the thread has not been joined, so its id is valid.
            unsafe { libc::pthread_kill(thread.as_pthread_t(), kick_signal()) };
        }
    }
}

struct Runner {
    index: u32,
    vcpu: VcpuFd,
    bus: Arc<Bus>,
    ending: EndingReport,
    commands: Receiver<Command>,
}

impl Runner {
    /// Paused: waits for commands.
    fn obey(&mut self) {
        while let Ok(command) = self.commands.recv() {
            match command {
                Command::End => return,
                Command::Pause(done) => {
                    let _ = done.send(());
                }
                Command::Save(done) => drop(done.send(crate::state::save_vcpu(&self.vcpu))),
                Command::Resume => {
                    if self.run() {
                        return;
                    }
                }
            }
        }
    }

    /// Running: until paused (false) or for good (true).
    fn run(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Err(TryRecvError::Empty) | Ok(Command::Resume) => {}
                Err(TryRecvError::Disconnected) | Ok(Command::End) => return true,
                Ok(Command::Save(done)) => drop(done.send(Err(Error::State("the vCPU is running".into())))),
                Ok(Command::Pause(done)) => {
                    self.finish_exit();
                    let _ = done.send(());
                    return false;
                }
            }
            if let Some(ending) = self.run_until_signal() {
                self.ending.tell(ending);
                return false;
            }
        }
    }

    /// What a device answered reaches the vCPU's registers with the next entry: one that ends before its first instruction.
    fn finish_exit(&mut self) {
        self.vcpu.set_kvm_immediate_exit(1);
        let _ = self.vcpu.run();
        self.vcpu.set_kvm_immediate_exit(0);
    }

    fn run_until_signal(&mut self) -> Option<Ending> {
        loop {
            let outcome = match self.vcpu.run() {
                Ok(VcpuExit::MmioRead(address, data)) => self.bus.read_memory(address, data),
                Ok(VcpuExit::MmioWrite(address, data)) => self.bus.write_memory(address, data),
                Ok(VcpuExit::IoIn(port, data)) => self.bus.read_port(port, data),
                Ok(VcpuExit::IoOut(port, data)) => self.bus.write_port(port, data),
                Ok(VcpuExit::Shutdown) => Outcome::End(Ending::Reset),
                Ok(VcpuExit::SystemEvent(kind, _)) => Outcome::End(system_event(kind)),
                Ok(VcpuExit::Hlt | VcpuExit::Intr | VcpuExit::IrqWindowOpen) => Outcome::Continue,
                Ok(VcpuExit::FailEntry(reason, _)) => Outcome::End(Ending::VcpuFailed(format!(
                    "vCPU {}: the CPU refuses to enter the guest, reason {reason:#x}",
                    self.index
                ))),
                Ok(VcpuExit::InternalError) => Outcome::End(self.internal_error()),
                Ok(other) => Outcome::End(Ending::VcpuFailed(format!("vCPU {}: {other:?}", self.index))),
                Err(cause) => match cause.errno() {
                    libc::EINTR => {
                        self.vcpu.set_kvm_immediate_exit(0);
                        return None;
                    }
                    libc::EAGAIN => Outcome::Continue,
                    _ => Outcome::End(Ending::VcpuFailed(format!("vCPU {}: KVM_RUN: {cause}", self.index))),
                },
            };
            match outcome {
                Outcome::Continue => {}
                Outcome::End(ending) => return Some(ending),
            }
        }
    }

    /// What KVM tells of an instruction that it could not emulate, and where it was.
    fn internal_error(&mut self) -> Ending {
        let rip = self.vcpu.get_regs().map(|registers| registers.rip).unwrap_or_default();
        // SAFETY: after this exit the union holds the `internal` variant.
        let suberror = unsafe { self.vcpu.get_kvm_run().__bindgen_anon_1.internal.suberror };
        Ending::VcpuFailed(format!("vCPU {}: KVM internal error {suberror} at {rip:#x}", self.index))
    }
}

fn system_event(kind: u32) -> Ending {
    match kind {
        kvm_bindings::KVM_SYSTEM_EVENT_SHUTDOWN => Ending::PowerOff,
        kvm_bindings::KVM_SYSTEM_EVENT_RESET => Ending::Reset,
        _ => Ending::VcpuFailed(format!("system event {kind}")),
    }
}
