//! A virtual CPU. Its guest code runs on a thread of its own, so that a run never blocks the caller's event loop and never takes a
//! thread of a pool that others need; the end of a run makes an eventfd readable.

use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once};
use std::thread::JoinHandle;

use kvm_bindings::{CpuId, kvm_regs, kvm_run, kvm_sregs};
use kvm_ioctls::VcpuFd;
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::Vm;
use super::processor::{Answer, BH_EXIT_INTERRUPTED, BhExit, Exit, Processor};
use crate::fault::{BH_ERROR_BUSY, BH_ERROR_PANIC, BH_ERROR_WRONG_STATE, Context, Fault, Outcome};

enum State {
    Idle,
    Running,
    Finished(Outcome<Exit>),
    Closing,
}

struct Shared {
    index: u32,
    processor: Mutex<Processor>,
    state: Mutex<State>,
    changed: Condvar,
    finished: EventFd,
    immediate_exit: *const AtomicU8,
    // Last: the machine and its memory outlive the vCPU's descriptor.
    _vm: Arc<Vm>,
}

// SAFETY: `immediate_exit` points into the page that `processor.fd` keeps mapped as long as this object lives, and is only used as
// an atomic; the rest is Sync by itself.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// A virtual CPU and its thread.
pub struct Vcpu {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// The signal whose only effect is that KVM_RUN returns. Real-time signals of this range are unused by Node and by glibc.
fn kick_signal() -> i32 {
    libc::SIGRTMIN() + 7
}

fn install_kick_handler() {
    extern "C" fn ignore(_signal: i32) {}
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: all zero is a valid `sigaction` (no flags, so KVM_RUN is not restarted; empty mask); the handler does nothing, so it
        // is async-signal-safe.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = ignore as extern "C" fn(i32) as usize;
            libc::sigaction(kick_signal(), &action, std::ptr::null_mut());
        }
    });
}

/// Signals of the process are for its other threads; those of a fault in this one cannot be blocked usefully.
fn block_all_but_kick() {
    // SAFETY: an all-zero set is a valid `sigset_t`; the calls get valid sets and valid signal numbers.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut set);
        for signal in [kick_signal(), libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE] {
            libc::sigdelset(&mut set, signal);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
    }
}

impl Vcpu {
    pub(super) fn start(vm: Arc<Vm>, mut fd: VcpuFd, index: u32) -> Outcome<Self> {
        install_kick_handler();
        let object = format!("vcpu {index}");
        let finished = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .context("create an eventfd for", object.clone())?;
        let run: *mut kvm_run = fd.get_kvm_run();
        // SAFETY: `run` points to the mapped page of this vCPU.
        let immediate_exit = unsafe { &raw mut (*run).immediate_exit }.cast::<AtomicU8>().cast_const();
        let processor = Mutex::new(Processor { fd, answer: None });
        let (state, changed) = (Mutex::new(State::Idle), Condvar::new());
        let shared = Arc::new(Shared { index, processor, state, changed, finished, immediate_exit, _vm: vm });
        let worker = shared.clone();
        let thread = std::thread::Builder::new().name(format!("bh-vcpu-{index}")).spawn(move || worker.serve());
        Ok(Self { shared, thread: Some(thread.context("start the thread of", object)?) })
    }

    /// Readable from the end of a run until `finish`.
    pub fn event_fd(&self) -> RawFd {
        self.shared.finished.as_raw_fd()
    }

    /// Lets guest code run.
    pub fn begin(&self) -> Outcome<()> {
        let mut state = self.shared.state()?;
        match *state {
            State::Idle => {
                // A register call of another thread may hold the processor at this moment.
                drop(self.shared.processor.try_lock().map_err(|_| self.shared.busy())?);
                self.shared.immediate_exit().store(0, Ordering::Release);
                *state = State::Running;
                self.shared.changed.notify_all();
                Ok(())
            }
            _ => Err(self.shared.busy()),
        }
    }

    /// The exit of the run that ended, and the vCPU is free again. With `wait`, blocks until it ends.
    pub fn finish(&self, wait: bool) -> Outcome<Exit> {
        let mut state = self.shared.state()?;
        while wait && matches!(*state, State::Running) {
            state = self.shared.changed.wait(state).map_err(|_| self.shared.unusable())?;
        }
        match std::mem::replace(&mut *state, State::Idle) {
            State::Finished(exit) => {
                let _ = self.shared.finished.read();
                exit
            }
            other => {
                *state = other;
                let object = format!("vcpu {}", self.shared.index);
                Err(Fault::new(BH_ERROR_WRONG_STATE, object.clone(), format!("{object} has no finished run")))
            }
        }
    }

    /// Ends the run in progress, if there is one; says whether there was.
    pub fn kick(&self) -> Outcome<bool> {
        let state = self.shared.state()?;
        let running = matches!(*state, State::Running);
        if running {
            self.shared.immediate_exit().store(1, Ordering::Release);
            self.signal();
        }
        Ok(running)
    }

    fn signal(&self) {
        if let Some(thread) = &self.thread {
            // SAFETY: the thread is joined only when this object is dropped, so its id is valid.
            unsafe { libc::pthread_kill(thread.as_pthread_t(), kick_signal()) };
        }
    }

    fn with_processor<T>(&self, action: &str, body: impl FnOnce(&mut Processor) -> Outcome<T>) -> Outcome<T> {
        let state = self.shared.state()?;
        if !matches!(*state, State::Idle) {
            return Err(Fault {
                message: format!("cannot {action} vcpu {} while it runs", self.shared.index),
                ..self.shared.busy()
            });
        }
        let mut processor = self.shared.processor.try_lock().map_err(|_| self.shared.busy())?;
        body(&mut processor)
    }

    /// Gives the guest the value of the read that ended the last run.
    pub fn answer(&self, bytes: &[u8]) -> Outcome<()> {
        let object = format!("vcpu {}", self.shared.index);
        self.with_processor("answer", |processor| match &processor.answer {
            Some(Answer(target, length)) if *length == bytes.len() => {
                // SAFETY: `target` and `length` are the kernel's, inside the vCPU's mapped page; no run is in progress.
                unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target.as_ptr(), *length) };
                processor.answer = None;
                Ok(())
            }
            Some(Answer(_, length)) => Err(Fault::invalid(
                object.clone(),
                format!("{object} reads {length} bytes, the answer has {}", bytes.len()),
            )),
            None => Err(Fault::new(BH_ERROR_WRONG_STATE, object.clone(), format!("{object} waits for no answer"))),
        })
    }

    /// General registers.
    pub fn registers(&self) -> Outcome<kvm_regs> {
        let object = format!("vcpu {}", self.shared.index);
        self.with_processor("read registers of", |processor| {
            processor.fd.get_regs().context("read registers of", object)
        })
    }

    /// Sets all general registers.
    pub fn set_registers(&self, registers: &kvm_regs) -> Outcome<()> {
        let object = format!("vcpu {}", self.shared.index);
        self.with_processor("set registers of", |processor| {
            processor.fd.set_regs(registers).context("set registers of", object)
        })
    }

    /// System registers.
    pub fn system_registers(&self) -> Outcome<kvm_sregs> {
        let object = format!("vcpu {}", self.shared.index);
        self.with_processor("read system registers of", |processor| {
            processor.fd.get_sregs().context("read system registers of", object)
        })
    }

    /// Sets all system registers.
    pub fn set_system_registers(&self, registers: &kvm_sregs) -> Outcome<()> {
        let object = format!("vcpu {}", self.shared.index);
        self.with_processor("set system registers of", |processor| {
            processor.fd.set_sregs(registers).context("set system registers of", object)
        })
    }

    /// What the guest's CPUID instruction answers.
    pub fn set_cpuid(&self, cpuid: &CpuId) -> Outcome<()> {
        let object = format!("vcpu {}", self.shared.index);
        self.with_processor("set CPUID of", |processor| processor.fd.set_cpuid2(cpuid).context("set CPUID of", object))
    }
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        if let Ok(mut state) = self.shared.state.lock() {
            *state = State::Closing;
            self.shared.immediate_exit().store(1, Ordering::Release);
            self.shared.changed.notify_all();
        }
        self.signal();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> Outcome<MutexGuard<'_, State>> {
        self.state.lock().map_err(|_| self.unusable())
    }

    fn unusable(&self) -> Fault {
        let object = format!("vcpu {}", self.index);
        Fault::new(BH_ERROR_PANIC, object.clone(), format!("{object} is unusable after an earlier failure"))
    }

    fn busy(&self) -> Fault {
        let object = format!("vcpu {}", self.index);
        Fault::new(
            BH_ERROR_BUSY,
            object.clone(),
            format!("{object} is in use by another call: it serves one at a time"),
        )
    }

    fn immediate_exit(&self) -> &AtomicU8 {
        // SAFETY: the page stays mapped while this object lives; the kernel and this library access the byte without tearing.
        unsafe { &*self.immediate_exit }
    }

    /// The thread's life: wait for a run, do it, tell.
    fn serve(&self) {
        block_all_but_kick();
        loop {
            let Ok(mut state) = self.state.lock() else { return };
            while !matches!(*state, State::Running | State::Closing) {
                let Ok(woken) = self.changed.wait(state) else { return };
                state = woken;
            }
            if matches!(*state, State::Closing) {
                return;
            }
            drop(state);
            let exit = self.run_until_exit();
            let Ok(mut state) = self.state.lock() else { return };
            if matches!(*state, State::Closing) {
                return;
            }
            *state = State::Finished(exit);
            self.changed.notify_all();
            let _ = self.finished.write(1);
        }
    }

    fn run_until_exit(&self) -> Outcome<Exit> {
        let object = format!("vcpu {}", self.index);
        let mut processor = self.processor.lock().map_err(|_| self.unusable())?;
        if processor.answer.is_some() {
            return Err(Fault::new(
                BH_ERROR_WRONG_STATE,
                object.clone(),
                format!("{object} waits for the answer to its last read"),
            ));
        }
        loop {
            match processor.step() {
                Err(Errno::EINTR) if self.immediate_exit().load(Ordering::Acquire) == 0 => {}
                Err(Errno::EINTR) => {
                    let fields = BhExit { kind: BH_EXIT_INTERRUPTED, ..BhExit::default() };
                    return Ok(Exit { fields, data: Vec::new() });
                }
                // Another thread of the library's user changed the memory map; the kernel asks to try again.
                Err(Errno::EAGAIN) => {}
                outcome => return outcome.context("run", object),
            }
        }
    }
}
