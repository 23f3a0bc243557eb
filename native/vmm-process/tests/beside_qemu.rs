//! Boot to agent, our machine and QEMU's microvm on the same KVM: same kernel, initramfs, command line, devices, in turn, in one run.
//! Wants KVM that runs an unmodified kernel: `make lab`.

mod support;

use serde_json::json;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::guest::{Image, Scratch};
use support::{COMMAND_LINE, Plan, Process, can_boot, inherit, kernels};

const ROUNDS: usize = 10;
const MEMORY_MIB: u64 = 256;
const DEADLINE: Duration = Duration::from_secs(120);

/// QEMU as the product starts it, without its jail.
fn start_qemu(kernel: &Path, initramfs: &Path, image: &Image, agent: OwnedFd) -> Child {
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let mut command = Command::new("qemu-system-x86_64");
    command.args([
        "-M",
        "microvm,acpi=on,pcie=off,usb=off,rtc=on,pit=on,x-option-roms=off,auto-kernel-cmdline=off",
        "-accel",
        "kvm",
        "-cpu",
        "host",
        "-smp",
        "1",
    ]);
    command.arg("-m").arg(format!("{MEMORY_MIB}M"));
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs).arg("-append").arg(COMMAND_LINE);
    command.args(["-global", "virtio-mmio.force-legacy=false"]);
    command.args(["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]);
    command.args(["-display", "none", "-serial", "null"]);
    command.args(["-device", "virtio-serial-device,bus=virtio-mmio-bus.5,id=ports,max_ports=3"]);
    command.arg("-chardev").arg(format!("socket,id=agent,fd={}", inherit(&agent)));
    command.arg("-device").arg(format!("virtserialport,bus=ports.0,nr=1,chardev=agent,name={}", support::AGENT));
    command.args(["-chardev", "null,id=files"]);
    command
        .arg("-device")
        .arg(format!("virtserialport,bus=ports.0,nr=2,chardev=files,name={}", bulkhead_protocol::FILES_PORT));
    for (index, (file, read_only)) in
        [(Path::new(&image.layers[0].image_path), "on"), (image.scratch.as_path(), "off")].into_iter().enumerate()
    {
        let file = path(file);
        command.arg("-blockdev").arg(format!("driver=file,node-name=f{index},filename={file},read-only={read_only}"));
        command.arg("-blockdev").arg(format!("driver=raw,node-name=d{index},file=f{index},read-only={read_only}"));
        command.arg("-device").arg(format!("virtio-blk-device,bus=virtio-mmio-bus.{},drive=d{index}", 4 - index));
    }
    command.args([
        "-object",
        "rng-builtin,id=entropy",
        "-device",
        "virtio-rng-device,bus=virtio-mmio-bus.1,rng=entropy",
    ]);
    command.args(["-nodefaults", "-no-user-config", "-no-reboot"]);
    command.stdin(Stdio::null()).spawn().unwrap()
}

/// Milliseconds from QEMU's start until the agent answers.
fn qemu_round(kernel: &Path, initramfs: &Path, image: &Image) -> u128 {
    let (mut agent, theirs) = UnixStream::pair().unwrap();
    agent.set_read_timeout(Some(DEADLINE)).unwrap();
    let begin = Instant::now();
    let mut child = start_qemu(kernel, initramfs, image, theirs.into());
    let mut answer = [0; 16];
    agent.write_all(b"BULKHEAD12345678").unwrap();
    let read = agent.read_exact(&mut answer);
    let elapsed = begin.elapsed().as_millis();
    let _ = child.kill();
    let _ = child.wait();
    read.unwrap();
    elapsed
}

fn our_round(kernel: &Path, initramfs: &Path, image: &Image) -> u128 {
    let mut plan = Plan::new(1, MEMORY_MIB << 20).kernel(kernel, initramfs, "");
    let (layer, scratch) = (plan.open(Path::new(&image.layers[0].image_path), false), plan.open(&image.scratch, true));
    let plan = plan
        .disk(json!({ "serial": "layers", "backend": { "kind": "raw", "fd": layer, "readOnly": true } }))
        .disk(json!({ "serial": "scratch", "backend": { "kind": "raw", "fd": scratch } }));
    let begin = Instant::now();
    let mut process = Process::start(plan);
    process.open_session(DEADLINE);
    let elapsed = begin.elapsed().as_millis();
    process.stop();
    elapsed
}

#[test]
fn our_machine_is_ready_in_six_tenths_of_the_time_that_qemu_takes() {
    if !can_boot() {
        return;
    }
    let directory = Scratch::new("beside-qemu");
    let image = Image::build(&directory.0);
    let mut ratios = Vec::new();
    for (name, kernel, initramfs) in kernels() {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(our_round(&kernel, &initramfs, &image));
            theirs.push(qemu_round(&kernel, &initramfs, &image));
        }
        ours.sort_unstable();
        theirs.sort_unstable();
        let ratio = ours[ROUNDS / 2] as f64 / theirs[ROUNDS / 2] as f64;
        eprintln!("{name}: boot to agent, ms\n  ours {ours:?}\n  QEMU {theirs:?}\n  medians' ratio {ratio:.2}");
        ratios.push((name, ratio));
    }
    // The bound is for our own kernel, and for Debian's where ours is not built.
    let (name, ratio) = ratios.last().unwrap();
    assert!(*ratio <= 0.6, "{name}: {ratio:.2}");
}
