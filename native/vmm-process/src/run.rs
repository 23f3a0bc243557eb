//! The process's life: configuration → jail → machine → monitor → exit status.

use crate::jail::{self, JailSpec};
use crate::monitor::{Monitor, Wish};
use crate::{seccomp, status};
use bulkhead_vmm::config;
use bulkhead_vmm::spec::{CONFIG_BYTES_MAX, FdSpec, MachineSpec};
use bulkhead_vmm::threads::ThreadStart;
use bulkhead_vmm::{Ending, Error, Machine, ThreadKind};
use kvm_ioctls::Kvm;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// What the process is started with.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProcessSpec {
    /// The machine.
    pub machine: MachineSpec,
    /// Monitor: a connected stream socket.
    pub monitor: FdSpec,
    /// An open `/dev/kvm`; it is opened by name if not said.
    #[serde(default)]
    pub kvm: Option<FdSpec>,
    /// The jail; without one the process keeps its user and its view of the file system.
    #[serde(default)]
    pub jail: Option<JailSpec>,
    /// Whether it runs at once, or waits for the monitor's word.
    #[serde(default)]
    pub start: bool,
}

/// A reason to end, and its exit status.
#[derive(Debug)]
pub struct Failure {
    /// Exit status.
    pub status: i32,
    /// In words.
    pub message: String,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { status: status::of_error(&error), message: error.to_string() }
    }
}

/// Runs the machine whose configuration is to be read from this descriptor; the exit status.
pub fn run(config_fd: RawFd) -> Result<i32, Failure> {
    let spec = read_spec(config_fd)?;
    let monitor_fd = spec.monitor.fd;
    let kvm_fd = spec.kvm.as_ref().map(|kvm| kvm.fd);
    let no_jail = |message: String| Failure { status: status::NO_JAIL, message };
    let mut keep: BTreeSet<RawFd> = spec.machine.descriptors().into_iter().collect();
    keep.extend([monitor_fd].into_iter().chain(kvm_fd));
    jail::close_others(&keep).map_err(no_jail)?;
    let reserved: Vec<RawFd> = [monitor_fd].into_iter().chain(kvm_fd).collect();
    let vcpus = u64::from(spec.machine.vcpus);
    let machine = config::take_config(spec.machine, &reserved)?;
    let monitor = Monitor::new(take_descriptor(monitor_fd, "monitor")?);
    let kvm = open_kvm(kvm_fd)?;
    if let Some(jail) = spec.jail {
        // Beside the vCPUs: disks, streams, this one, and the kernel's own: from 6.12 on KVM makes a thread of this user's at the first
        // KVM_RUN (for huge pages), which without room fails with EAGAIN for ever.
        jail::enter(jail, vcpus + 8).map_err(no_jail)?;
    }
    jail::restrict().map_err(no_jail)?;
    let start: ThreadStart = Arc::new(seccomp::confine);
    let machine = Machine::build(&kvm, machine, &start)?;
    drop(kvm);
    let epoll = wait_for(&monitor, &machine)?;
    seccomp::confine(ThreadKind::Monitor).map_err(no_jail)?;
    Ok(supervise(machine, monitor, &epoll, spec.start))
}

fn read_spec(fd: RawFd) -> Result<ProcessSpec, Failure> {
    let bad = |message: String| Failure { status: status::BAD_CONFIG, message };
    let mut text = Vec::new();
    File::from(take_descriptor(fd, "configuration")?)
        .take(CONFIG_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .map_err(|cause| bad(format!("the configuration cannot be read: {cause}")))?;
    if text.len() as u64 > CONFIG_BYTES_MAX {
        return Err(bad(format!("the configuration has more than {CONFIG_BYTES_MAX} bytes")));
    }
    serde_json::from_slice(&text).map_err(|cause| bad(format!("the configuration is not understood: {cause}")))
}

fn take_descriptor(fd: RawFd, what: &str) -> Result<OwnedFd, Failure> {
    // SAFETY: F_SETFD on a number that is nothing fails and does no harm.
    if fd <= 2 || unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(Failure { status: status::BAD_CONFIG, message: format!("{what}: descriptor {fd} is not open") });
    }
    // SAFETY: it is open, and inherited for this.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn open_kvm(fd: Option<RawFd>) -> Result<Kvm, Failure> {
    let failed = |message: String| Failure { status: status::NO_KVM, message };
    match fd {
        Some(fd) => {
            use std::os::fd::IntoRawFd;
            let fd = take_descriptor(fd, "kvm")?.into_raw_fd();
            // SAFETY: an open descriptor that is nobody else's; its first use tells whether it is KVM.
            Ok(unsafe { Kvm::from_raw_fd(fd) })
        }
        None => Kvm::new().map_err(|cause| failed(format!("/dev/kvm cannot be opened: {cause}"))),
    }
}

fn wait_for(monitor: &Monitor, machine: &Machine) -> Result<Epoll, Failure> {
    let failed = |cause: std::io::Error| Failure { status: status::SYSTEM, message: format!("epoll: {cause}") };
    let epoll = Epoll::new().map_err(failed)?;
    for fd in [monitor.fd(), machine.ending_event().as_raw_fd(), machine.port_event().as_raw_fd()] {
        epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, fd as u64)).map_err(failed)?;
    }
    Ok(epoll)
}

fn supervise(mut machine: Machine, mut monitor: Monitor, epoll: &Epoll, start: bool) -> i32 {
    if start {
        machine.resume();
    }
    let mut events = [EpollEvent::default(); 3];
    loop {
        if let Some(ending) = machine.ending() {
            return end(machine, &monitor, &ending);
        }
        let count = epoll.wait(-1, &mut events).unwrap_or(0);
        let ready = |fd: RawFd| events[..count].iter().any(|event| event.data() == fd as u64);
        if ready(machine.port_event().as_raw_fd()) {
            let _ = machine.port_event().read();
            monitor.tell_ports(&machine);
        }
        if ready(monitor.fd()) {
            match monitor.serve(&mut machine) {
                Wish::None => {}
                Wish::Stop => return end(machine, &monitor, &Ending::Stopped),
                Wish::Gone => return status::NO_MONITOR,
            }
        }
    }
}

fn end(machine: Machine, monitor: &Monitor, ending: &Ending) -> i32 {
    // Whatever the devices were doing is done before anybody hears of the end.
    drop(machine);
    let detail = match ending {
        Ending::VcpuFailed(reason) => {
            eprintln!("bulkhead-vmm: {reason}");
            Some(reason.as_str())
        }
        _ => None,
    };
    monitor.tell_end(status::word(ending), detail);
    status::of_ending(ending)
}
