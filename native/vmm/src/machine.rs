//! A machine: built from its configuration, paused; then resumed, paused, saved, and ended.

use crate::boot;
use crate::config::{Beginning, MachineConfig};
use crate::cpuid;
use crate::devices::{Bus, SerialOutput};
use crate::error::{Error, Result};
use crate::io_thread::IoThread;
use crate::layout;
use crate::memory::{GuestRam, Mapping, map_guest_ram, register_memory};
use crate::registers;
use crate::state::{self, MachineState};
use crate::threads::{ThreadKind, ThreadStart};
use crate::vcpu::{VcpuThread, install_kick_handler};
use crate::virtio::block::Block;
use crate::virtio::console::Console;
use crate::virtio::device::{Control, VirtioDevice};
use crate::virtio::entropy::Entropy;
use crate::virtio::net::Net;
use crate::virtio::rate_limit::RateLimit;
use crate::virtio::transport::Transport;
use kvm_bindings::{KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES, KVM_PIT_SPEAKER_DUMMY, kvm_pit_config};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VcpuFd, VmFd};
use std::sync::{Arc, Mutex, PoisonError};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Why a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The guest switched it off.
    PowerOff,
    /// The guest reset it, or crashed so badly that the CPU did.
    Reset,
    /// It was told to from outside.
    Stopped,
    /// A vCPU cannot go on; in words.
    VcpuFailed(String),
}

/// Where vCPUs tell why they ended; the first word counts.
#[derive(Clone)]
pub(crate) struct EndingReport {
    ending: Arc<Mutex<Option<Ending>>>,
    event: Arc<EventFd>,
}

impl EndingReport {
    fn new() -> Result<Self> {
        let event = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map_err(|cause| Error::system("eventfd", cause))?;
        Ok(Self { ending: Arc::default(), event: Arc::new(event) })
    }

    pub(crate) fn tell(&self, ending: Ending) {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(ending);
        let _ = self.event.write(1);
    }

    fn ending(&self) -> Option<Ending> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A device, and the thread that serves it.
struct Placed {
    transport: Arc<Transport>,
    thread: ThreadKind,
}

/// A machine. Dropping it ends it.
pub struct Machine {
    vm: VmFd,
    memory_bytes: u64,
    mapping: Mapping,
    bus: Arc<Bus>,
    devices: Vec<Placed>,
    vcpus: Vec<VcpuThread>,
    disks: IoThread,
    streams: IoThread,
    ending: EndingReport,
    port_event: Arc<EventFd>,
    running: bool,
}

/// What KVM must be able to do, and how it is called in a message.
const CAPABILITIES: [(Cap, &str); 7] = [
    (Cap::Irqchip, "in-kernel interrupt controllers"),
    (Cap::Irqfd, "interrupts by eventfd"),
    (Cap::Ioeventfd, "eventfds for guest writes"),
    (Cap::ImmediateExit, "immediate exit"),
    (Cap::UserMemory, "user memory"),
    (Cap::Pit2, "in-kernel timer"),
    (Cap::ExtCpuid, "CPUID"),
];

/// KVM, checked for what a machine needs.
pub fn check_kvm(kvm: &Kvm) -> Result<()> {
    let version = kvm.get_api_version();
    if version != KVM_API_VERSION as i32 {
        return Err(Error::Config(format!("KVM speaks version {version} of its interface, not {KVM_API_VERSION}")));
    }
    match CAPABILITIES.iter().find(|(capability, _)| !kvm.check_extension(*capability)) {
        Some((_, name)) => Err(Error::Config(format!("this KVM has no {name}"))),
        None => Ok(()),
    }
}

fn create_vm(kvm: &Kvm) -> Result<VmFd> {
    let failed = |what: &'static str| move |cause| Error::kvm(what, cause);
    let vm = kvm.create_vm().map_err(failed("creating a machine"))?;
    vm.set_identity_map_address(layout::KVM_IDENTITY_MAP).map_err(failed("the identity map"))?;
    vm.set_tss_address(layout::KVM_TSS).map_err(failed("the task state segment"))?;
    vm.create_irq_chip().map_err(failed("creating the interrupt controllers"))?;
    let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
    vm.create_pit2(pit).map_err(failed("creating the timer"))?;
    Ok(vm)
}

fn interrupt(vm: &VmFd, gsi: u32) -> Result<EventFd> {
    let event = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map_err(|cause| Error::system("eventfd", cause))?;
    vm.register_irqfd(&event, gsi).map_err(|cause| Error::kvm(format!("interrupt {gsi}"), cause))?;
    Ok(event)
}

fn limit(limits: (u64, u64)) -> Result<RateLimit> {
    RateLimit::new(limits.0, limits.1).map_err(|cause| Error::system("the timer of a limit", cause))
}

type Made = (String, Box<dyn VirtioDevice>, ThreadKind);

/// The devices in the order of their slots: console, disks, network card, entropy.
fn make_devices(config: &mut MachineConfig, port_event: &Arc<EventFd>) -> Result<Vec<Made>> {
    let refuse = |name: &str| {
        let name = name.to_owned();
        move |reason: String| Error::device(name, reason)
    };
    let console = Console::new(std::mem::take(&mut config.ports), Arc::clone(port_event)).map_err(refuse("console"))?;
    let mut made: Vec<Made> = vec![("console".into(), Box::new(console), ThreadKind::Stream)];
    for disk in config.disks.drain(..) {
        let device = Block::new(disk.backend, &disk.serial, limit(disk.limits)?).map_err(refuse(&disk.serial))?;
        made.push((disk.serial, Box::new(device), ThreadKind::Disk));
    }
    if let Some(network) = config.network.take() {
        let card =
            Net::new(network.tap, network.mac, network.mtu, limit(network.limits)?).map_err(refuse("network"))?;
        made.push(("network".into(), Box::new(card), ThreadKind::Stream));
    }
    made.push(("entropy".into(), Box::new(Entropy), ThreadKind::Stream));
    Ok(made)
}

fn place_devices(vm: &VmFd, ram: &Arc<GuestRam>, made: Vec<Made>) -> Result<Vec<Placed>> {
    made.into_iter()
        .enumerate()
        .map(|(index, (name, device, thread))| {
            let line = interrupt(vm, layout::VIRTIO_FIRST_GSI + index as u32)?;
            let transport = Transport::new(name, device, Arc::clone(ram), line)?;
            let notify = layout::VIRTIO_MMIO + index as u64 * layout::VIRTIO_MMIO_STRIDE + layout::QUEUE_NOTIFY;
            for (queue, event) in (0_u32..).zip(&transport.events) {
                vm.register_ioevent(event, &IoEventAddress::Mmio(notify), queue)
                    .map_err(|cause| Error::kvm(format!("notifications of {}", transport.name), cause))?;
            }
            Ok(Placed { transport: Arc::new(transport), thread })
        })
        .collect()
}

impl Machine {
    /// Builds a machine, paused. `start` is called first in each of its threads.
    pub fn build(kvm: &Kvm, mut config: MachineConfig, start: &ThreadStart) -> Result<Self> {
        check_kvm(kvm)?;
        // Read and verified before anything is made of it.
        let saved = match &mut config.beginning {
            Beginning::Restore(file) => Some(state::read(file)?),
            Beginning::Boot { .. } => None,
        };
        if let Some(saved) = &saved {
            check_saved(saved, &config)?;
        }
        state::learn_msrs(kvm)?;
        let most = kvm.get_max_vcpus();
        if config.vcpus as usize > most {
            return Err(Error::Config(format!("{} vCPUs; this KVM makes {most} at most", config.vcpus)));
        }
        install_kick_handler()?;
        let vm = create_vm(kvm)?;
        let ram = Arc::new(map_guest_ram(config.memory.take(), config.memory_bytes, config.mapping)?);
        register_memory(&vm, &ram)?;
        let port_event = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map_err(|cause| Error::system("eventfd", cause))?;
        let port_event = Arc::new(port_event);
        let made = make_devices(&mut config, &port_event)?;
        let devices = place_devices(&vm, &ram, made)?;
        let transports: Vec<Arc<Transport>> = devices.iter().map(|placed| Arc::clone(&placed.transport)).collect();
        let line = interrupt(&vm, layout::SERIAL_GSI)?;
        let again = line.try_clone().map_err(|cause| Error::system("eventfd", cause))?;
        let output = config.serial.as_ref().map(std::fs::File::try_clone).transpose();
        let output = output.map_err(|cause| Error::system("serial output", cause))?;
        let bus = Arc::new(Bus::new(transports, line, SerialOutput::new(output)));
        let vcpus = make_vcpus(kvm, &vm, &config, saved.as_ref())?;
        match (&mut config.beginning, &saved) {
            (Beginning::Boot { kernel, initramfs, command_line }, _) => {
                let rsdp = crate::acpi::write_tables(&ram, config.vcpus, devices.len())?;
                let entry = boot::load(&ram, config.memory_bytes, kernel, initramfs.as_mut(), command_line, rsdp)?;
                if let Some(first) = vcpus.first() {
                    registers::set_entry(first, &ram, entry)?;
                }
            }
            (Beginning::Restore(_), Some(saved)) => {
                state::restore_vm(&vm, &saved.vm)?;
                bus.restore_serial(&saved.serial, again, SerialOutput::new(config.serial.take()))
                    .map_err(Error::State)?;
                for (placed, saved) in devices.iter().zip(&saved.devices) {
                    placed.transport.restore(saved)?;
                }
            }
            (Beginning::Restore(_), None) => return Err(Error::State("it was not read".into())),
        }
        Self::start_threads(vm, &config, bus, devices, vcpus, port_event, start)
    }

    fn start_threads(
        vm: VmFd,
        config: &MachineConfig,
        bus: Arc<Bus>,
        devices: Vec<Placed>,
        vcpus: Vec<VcpuFd>,
        port_event: Arc<EventFd>,
        start: &ThreadStart,
    ) -> Result<Self> {
        let ending = EndingReport::new()?;
        let of = |kind| {
            devices.iter().filter(|placed| placed.thread == kind).map(|placed| Arc::clone(&placed.transport)).collect()
        };
        let disks = IoThread::start(ThreadKind::Disk, "disks", of(ThreadKind::Disk), start)?;
        let streams = IoThread::start(ThreadKind::Stream, "streams", of(ThreadKind::Stream), start)?;
        let vcpus = (0..)
            .zip(vcpus)
            .map(|(index, vcpu)| VcpuThread::start(index, vcpu, Arc::clone(&bus), ending.clone(), start))
            .collect::<Result<_>>()?;
        Ok(Self {
            vm,
            memory_bytes: config.memory_bytes,
            mapping: config.mapping,
            bus,
            devices,
            vcpus,
            disks,
            streams,
            ending,
            port_event,
            running: false,
        })
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// Lets it run.
    pub fn resume(&mut self) {
        if !std::mem::replace(&mut self.running, true) {
            self.disks.resume();
            self.streams.resume();
            self.vcpus.iter().for_each(VcpuThread::resume);
        }
    }

    /// Stops it where it is: first the vCPUs, so that nothing new is asked of the devices, then those.
    pub fn pause(&mut self) {
        if std::mem::replace(&mut self.running, false) {
            let waits: Vec<_> = self.vcpus.iter().map(VcpuThread::pause).collect();
            for wait in waits {
                let _ = wait.recv();
            }
            self.disks.pause();
            self.streams.pause();
        }
    }

    /// The state of a paused machine; its memory is in its file, if that is mapped shared.
    pub fn save(&self) -> Result<MachineState> {
        if self.running {
            return Err(Error::State("the machine is running; pause it first".into()));
        }
        if self.mapping != Mapping::Shared {
            return Err(Error::State(
                "what the guest wrote is in no file: only a machine with shared memory is saved".into(),
            ));
        }
        let vcpus = self.vcpus.iter().map(VcpuThread::save).collect::<Result<_>>()?;
        Ok(MachineState {
            memory_bytes: self.memory_bytes,
            devices: self.devices.iter().map(|placed| placed.transport.save()).collect(),
            vm: state::save_vm(&self.vm)?,
            vcpus,
            serial: self.bus.save_serial(),
        })
    }

    /// Tells a device something.
    pub fn control(&self, device: &str, control: Control) -> Result<()> {
        let place = self.devices.iter().position(|placed| placed.transport.name == device);
        let placed = place.and_then(|place| self.devices.get(place).map(|placed| (place, placed)));
        let Some((place, placed)) = placed else {
            return Err(Error::device(device, "the machine has none of this name"));
        };
        if placed.transport.control(control)?.sources {
            let within = self.devices[..place].iter().filter(|other| other.thread == placed.thread).count();
            match placed.thread {
                ThreadKind::Disk => self.disks.refresh(within),
                _ => self.streams.refresh(within),
            }
        }
        Ok(())
    }

    /// Its devices in the order of their slots: name, what each says of itself, and why it stopped if it did.
    pub fn describe_devices(&self) -> Vec<serde_json::Value> {
        self.devices.iter().map(|placed| placed.transport.describe()).collect()
    }

    /// Becomes readable when the guest opens or closes a console port.
    pub fn port_event(&self) -> &EventFd {
        &self.port_event
    }

    /// Becomes readable when the machine ends.
    pub fn ending_event(&self) -> &EventFd {
        &self.ending.event
    }

    /// Why it ended, if it did.
    pub fn ending(&self) -> Option<Ending> {
        self.ending.ending()
    }

    /// Number of vCPUs.
    pub fn vcpu_count(&self) -> usize {
        self.vcpus.len()
    }

    /// Its RAM, bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.vcpus.iter_mut().for_each(VcpuThread::end);
        self.disks.end();
        self.streams.end();
    }
}

fn make_vcpus(kvm: &Kvm, vm: &VmFd, config: &MachineConfig, saved: Option<&MachineState>) -> Result<Vec<VcpuFd>> {
    let supported = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(|cause| Error::kvm("the CPUID that it supports", cause))?;
    (0..config.vcpus)
        .map(|index| {
            let vcpu =
                vm.create_vcpu(index.into()).map_err(|cause| Error::kvm(format!("creating vCPU {index}"), cause))?;
            if let Some(state) = saved.and_then(|saved| saved.vcpus.get(index as usize)) {
                state::restore_vcpu(&vcpu, state)?;
                return Ok(vcpu);
            }
            let entries = cpuid::vcpu_cpuid(supported.as_slice(), index, config.vcpus, &config.cpuid_masks);
            vcpu.set_cpuid2(&cpuid::to_kvm(&entries)?)
                .map_err(|cause| Error::kvm(format!("the CPUID of vCPU {index}"), cause))?;
            registers::set_reset_state(&vcpu)?;
            Ok(vcpu)
        })
        .collect()
}

/// Refuses a state of another machine.
fn check_saved(saved: &MachineState, config: &MachineConfig) -> Result<()> {
    if saved.memory_bytes != config.memory_bytes {
        let (theirs, ours) = (saved.memory_bytes, config.memory_bytes);
        return Err(Error::State(format!("it is of a machine with {theirs} bytes of memory, this one has {ours}")));
    }
    if saved.vcpus.len() != config.vcpus as usize {
        return Err(Error::State(format!("it is of {} vCPUs, this machine has {}", saved.vcpus.len(), config.vcpus)));
    }
    let devices = 2 + config.disks.len() + usize::from(config.network.is_some());
    if saved.devices.len() != devices {
        return Err(Error::State(format!("it is of {} devices, this machine has {devices}", saved.devices.len())));
    }
    Ok(())
}
