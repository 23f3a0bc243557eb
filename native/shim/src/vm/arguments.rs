//! QEMU's command line, as a pure function of the machine.

use crate::vm::ram_file::RAM_IN_JAIL;
use crate::vm::slots::{self, LAYERS_NODE, LAYERS_SERIAL, PLACEHOLDER_BYTES, SCRATCH_NODE, SCRATCH_SERIAL};
use bulkhead_protocol::{AGENT_PORT, FILES_PORT, MachineConfig};
use std::os::fd::RawFd;

/// Where the jail has the guest's kernel.
pub const KERNEL_IN_JAIL: &str = "/boot/kernel";
/// Where the jail has the guest's initramfs.
pub const INITRAMFS_IN_JAIL: &str = "/boot/initramfs";

/// Upper bound of the translator's code cache, bytes. It is touched lazily: 32, 64 and 1024 MiB took the same memory for short runs.
pub const TRANSLATION_CACHE_BYTES: u64 = 256 << 20;

/// Id of the agent's console port in the monitor's events.
pub const AGENT_DEVICE: &str = "agent-port";

/// Descriptor set of the console; those of the disks count from 1.
const CONSOLE_SET: usize = 1000;

const MIB: u64 = 1 << 20;

/// The machine process's ends, under the numbers that it inherits.
pub struct MachineFds {
    /// Agent port.
    pub agent: RawFd,
    /// Monitor.
    pub monitor: RawFd,
    /// Serial console.
    pub console: RawFd,
    /// The tap.
    pub tap: RawFd,
}

/// How a machine comes to its first state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// It boots.
    Boot,
    /// It boots, in RAM that is a file, and is saved.
    BootToSave,
    /// Its RAM is a private mapping of a template's, its state is loaded.
    Restore,
}

/// MAC address of a machine that is nobody's yet (locally administered); the agent sets the container's.
const NOBODYS_MAC: &str = "02:00:00:00:00:01";

/// Whether the machine runs in software emulation.
pub fn is_emulated(machine: &MachineConfig) -> bool {
    machine.accelerator == "tcg"
}

/// The guest kernel's command line. `tsc_khz` is the host's time stamp counter, if it can be trusted.
pub fn kernel_command_line(machine: &MachineConfig, tsc_khz: Option<u64>) -> String {
    // reboot=t: triple fault, which with -no-reboot ends QEMU at once; panic=-1: a panic does so too.
    let mut words: Vec<String> = [
        "console=ttyS0 quiet reboot=t panic=-1 8250.nr_uarts=1 random.trust_cpu=on cryptomgr.notests raid=noautodetect",
        // No device to look for: they cost an emulated boot, or print.
        "no_timer_check i8042.noaux i8042.nokbd",
    ]
    .map(str::to_owned)
    .into();
    if is_emulated(machine) {
        // Speculation does not exist in emulated code, and taking the lock prefixes out of the kernel costs more there than they do.
        words.push("mitigations=off noreplace-smp".into());
        if let Some(khz) = tsc_khz {
            // The emulated counter is the host's. Calibrating it against an emulated timer takes long, and under load gives
            // nonsense (the clock source then falls back to jiffies, 4 ms). lpj is for 250 Hz: both kernels have CONFIG_HZ=250.
            words.push(format!("tsc=reliable tsc_early_khz={khz} lpj={}", khz * 4));
        }
    }
    words.extend(machine.kernel_arguments.iter().cloned());
    words.join(" ")
}

/// All arguments, without the program's name.
pub fn qemu_arguments(
    machine: &MachineConfig,
    fds: &MachineFds,
    beginning: Beginning,
    tsc_khz: Option<u64>,
) -> Vec<String> {
    let mut list: Vec<String> = Vec::with_capacity(80);
    let mut add = |option: &str, value: String| list.extend([option.to_owned(), value]);
    let memory = if beginning == Beginning::Boot { "" } else { ",memory-backend=ram" };
    add(
        "-M",
        format!("microvm,acpi=on,pcie=off,usb=off,rtc=on,pit=on,x-option-roms=off,auto-kernel-cmdline=off{memory}"),
    );
    add(
        "-accel",
        if is_emulated(machine) {
            format!("tcg,thread=multi,tb-size={}", TRANSLATION_CACHE_BYTES / MIB)
        } else {
            "kvm".into()
        },
    );
    add("-cpu", machine.cpu_model.clone());
    add("-smp", machine.vcpus.to_string());
    add("-m", format!("{}M", machine.memory_bytes / MIB));
    if beginning != Beginning::Boot {
        let share = if beginning == Beginning::Restore { "off" } else { "on" };
        let size = machine.memory_bytes / MIB;
        add("-object", format!("memory-backend-file,id=ram,size={size}M,mem-path={RAM_IN_JAIL},share={share}"));
    }
    if beginning == Beginning::Restore {
        add("-incoming", "defer".into());
    } else {
        add("-kernel", KERNEL_IN_JAIL.into());
        add("-initrd", INITRAMFS_IN_JAIL.into());
        add("-append", kernel_command_line(machine, tsc_khz));
    }
    // Legacy virtio is the default of virtio-mmio.
    add("-global", "virtio-mmio.force-legacy=false".into());
    add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".into());
    add("-display", "none".into());

    add("-chardev", format!("socket,id=monitor,fd={}", fds.monitor));
    add("-mon", "chardev=monitor,mode=control".into());
    // A pipe, for QEMU writes single bytes, and a socket's buffer holds only some hundred of them before they are lost.
    add("-add-fd", format!("fd={},set={CONSOLE_SET}", fds.console));
    add("-chardev", format!("file,id=console,path=/dev/fdset/{CONSOLE_SET},append=on"));
    add("-serial", "chardev:console".into());

    // Port 0 is reserved for a console that the guest kernel would open itself.
    add("-device", format!("virtio-serial-device,bus={},id=ports,max_ports=3", slots::bus(slots::CONSOLE)));
    add("-chardev", format!("socket,id=agent,fd={}", fds.agent));
    add("-device", format!("virtserialport,bus=ports.0,nr=1,chardev=agent,id={AGENT_DEVICE},name={AGENT_PORT}"));
    add("-chardev", "null,id=files".into());
    add("-device", format!("virtserialport,bus=ports.0,nr=2,chardev=files,name={FILES_PORT}"));

    for (node, read_only) in [(LAYERS_NODE, "on"), (SCRATCH_NODE, "off")] {
        let empty = slots::empty_node(node);
        add(
            "-blockdev",
            format!("driver=null-co,node-name={empty},size={PLACEHOLDER_BYTES},read-zeroes=on,read-only={read_only}"),
        );
        add("-blockdev", format!("driver=raw,node-name={node},file={empty},read-only={read_only}"));
    }
    let disk = |slot, node, serial| format!("virtio-blk-device,bus={},drive={node},serial={serial}", slots::bus(slot));
    add("-device", disk(slots::LAYERS, LAYERS_NODE, LAYERS_SERIAL));
    add("-device", disk(slots::SCRATCH, SCRATCH_NODE, SCRATCH_SERIAL));
    add("-netdev", format!("tap,id=network,fd={}", fds.tap));
    add("-device", format!("virtio-net-device,bus={},netdev=network,mac={NOBODYS_MAC}", slots::bus(slots::NETWORK)));
    add("-object", "rng-builtin,id=entropy".into());
    add("-device", format!("virtio-rng-device,bus={},rng=entropy", slots::bus(slots::ENTROPY)));
    list.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(str::to_owned));
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(accelerator: &str) -> MachineConfig {
        MachineConfig {
            driver: "qemu".into(),
            accelerator: accelerator.into(),
            qemu_path: "/usr/bin/qemu-system-x86_64".into(),
            kernel_path: "/k".into(),
            initramfs_path: "/i".into(),
            kernel_arguments: vec!["norandmaps".into()],
            vcpus: 2,
            memory_bytes: 300 << 20,
            cpu_model: "max".into(),
            uid: 90_000,
            cgroup_path: "bulkhead/x".into(),
            tap_name: "bhtx".into(),
            template: None,
        }
    }

    #[test]
    fn an_emulated_machine_gets_the_hosts_counter_and_a_real_one_its_own() {
        let emulated = kernel_command_line(&machine("tcg"), Some(2_500_000));
        let real = kernel_command_line(&machine("kvm"), Some(2_500_000));

        assert!(emulated.contains("tsc=reliable tsc_early_khz=2500000 lpj=10000000"), "{emulated}");
        assert!(emulated.ends_with(" norandmaps"), "{emulated}");
        assert!(!real.contains("tsc"), "{real}");
        assert!(!real.contains("mitigations"), "{real}");
    }

    #[test]
    fn a_saved_machine_and_its_clones_have_the_same_devices() {
        let fds = MachineFds { agent: 10, monitor: 11, console: 12, tap: 13 };
        let of = |beginning| qemu_arguments(&machine("tcg"), &fds, beginning, None);
        let devices = |arguments: &[String]| -> Vec<String> {
            arguments.iter().filter(|word| word.contains("bus=virtio-mmio-bus.")).cloned().collect()
        };

        let (booted, saved, restored) = (of(Beginning::Boot), of(Beginning::BootToSave), of(Beginning::Restore));

        assert_eq!(devices(&booted), devices(&saved));
        assert_eq!(devices(&saved), devices(&restored));
        assert!(devices(&booted).iter().all(|device| !device.contains("virtio-mmio-bus.0")), "0 never interrupts");
        assert!(saved.iter().any(|word| word.ends_with("mem-path=/ram,share=on")), "{saved:?}");
        assert!(restored.iter().any(|word| word.ends_with("mem-path=/ram,share=off")), "{restored:?}");
        assert!(!restored.contains(&"-kernel".to_owned()), "{restored:?}");
    }
}
