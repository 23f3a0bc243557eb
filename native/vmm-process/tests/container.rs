//! A container in our machine: layers and scratch disk, output, network. They want KVM that runs an unmodified kernel: `make lab`.

mod support;

use bulkhead_protocol::Network;
use serde_json::json;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;
use support::guest::{Guest, Image, Scratch, quick_kernel};
use support::{Plan, Process, can_boot};

const BOOT_DEADLINE: Duration = Duration::from_secs(120);

/// A tap with this name, its host's end up with this address.
fn tap(name: &str, address: &str) -> File {
    let file = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    // struct ifreq: name, flags (linux/if_tun.h: IFF_TAP, IFF_NO_PI, IFF_VNET_HDR).
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&(0x0002_u16 | 0x1000 | 0x4000).to_le_bytes());
    // SAFETY: TUNSETIFF reads and writes one ifreq.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), 0x4004_54ca, request.as_mut_ptr()) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    for arguments in [vec!["addr", "add", address, "dev", name], vec!["link", "set", name, "up"]] {
        assert!(Command::new("ip").args(arguments).status().unwrap().success());
    }
    file
}

fn network() -> Network {
    Network {
        bridge: String::new(),
        host_interface: String::new(),
        interface: "eth0".into(),
        mac_address: "02:42:0a:63:00:02".into(),
        ipv4_address: "10.99.0.2".into(),
        ipv4_prefix_length: 24,
        ipv4_gateway: "10.99.0.1".into(),
        mtu: 1500,
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_container_reads_its_layers_writes_its_disk_and_reaches_the_host() {
    if !can_boot() {
        return;
    }
    let directory = Scratch::new("container");
    let image = Image::build(&directory.0);
    let (kernel, initramfs) = quick_kernel();
    let mut plan = image.disks(Plan::new(2, 256 << 20).kernel(&kernel, &initramfs, ""));
    // A file, so that its mapping can be told from the process's own.
    let memory = plan.keep(support::memory_file(256 << 20));
    plan.machine["memory"] = json!({ "fd": memory, "mapping": "shared" });
    let tap = plan.keep(tap("bhvmmtest0", "10.99.0.1/24"));
    plan.machine["network"] = json!({ "fd": tap, "mac": "02:00:00:00:00:01" });
    let mut process = Process::start(plan);
    process.open_session(BOOT_DEADLINE);
    let guest = Guest::connect(&process.agent).await;
    let script = "md5sum </pattern; dd if=/pattern of=/copy bs=1M 2>/dev/null; sync; md5sum </copy; \
        ip addr show eth0 | grep -c 10.99.0.2; ping -c 1 -W 20 10.99.0.1 >/dev/null && echo reached; exit 7";

    let (code, text) = guest.run_container("c1", &image, &["/bin/sh", "-c", script], Some(network())).await;

    let digest = image.pattern_digest();
    assert_eq!(text, format!("{digest}  -\n{digest}  -\n1\nreached\n"));
    assert_eq!(code, 7);
    let overhead = process.overhead_bytes();
    eprintln!("memory beside the guest's: {} KiB resident", overhead >> 10);
    process.assert_no_device_broken();
    process.stop();
}
