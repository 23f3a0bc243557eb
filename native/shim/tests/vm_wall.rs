//! Tests on real machines: they want root, QEMU, `mkfs.erofs`, a static busybox, and the images that `make` leaves in build/vm.

mod machine_bench;

use bulkhead_protocol::{FailureCode, MachineConfig, Network};
use bulkhead_shim::wall::{NetworkHandle, ProcessKey};
use bytes::Bytes;
use machine_bench::{Bench, CONTAINER, STOP_DEADLINE, make_tap, payload, request, status_line};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[tokio::test(flavor = "current_thread")]
async fn a_command_runs_in_a_jailed_machine_and_nothing_stays() {
    let bench = Bench::new();
    let key = ProcessKey::init(CONTAINER);
    let wall = bench.start().await.unwrap();
    let script = "echo hi; cat /etc/hostname; exit 42";
    let mut create = request(bench.rootfs(1), &["/bin/sh", "-c", script], false);
    create.files.insert("/etc/hostname".into(), "bench\n".into());

    wall.create_container(CONTAINER, create).await.unwrap();
    let output = wall.output(&key).await.unwrap();
    wall.start_process(&key).await.unwrap();
    let text = payload(output).await;
    let exit = wall.wait(&key).await;

    let pid = wall.machine_pid();
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let status = fs::read_to_string(proc.join("status")).unwrap();
    let uid = bench.machine.uid.to_string();
    let open: Vec<PathBuf> = fs::read_dir(proc.join("fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter(|target| target.is_absolute() && !target.starts_with("/dev"))
        .collect();
    let mounts = fs::read_to_string(proc.join("mounts")).unwrap();
    wall.stop(STOP_DEADLINE).await.unwrap();

    assert_eq!(text, "hi\nbench\n");
    assert_eq!((exit.exit_code, exit.error.as_str()), (42, ""));
    assert_eq!(status_line(&status, "Uid:"), [uid.as_str(); 4].join("\t"));
    assert_eq!(status_line(&status, "Gid:"), [uid.as_str(); 4].join("\t"));
    assert_eq!(status_line(&status, "Groups:"), "");
    assert_eq!(status_line(&status, "NoNewPrivs:"), "1");
    assert_eq!(status_line(&status, "Seccomp:"), "2");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(status_line(&status, set), "0000000000000000", "{set}");
    }
    // Only the container's disks, which were passed; no path of the host was opened by the machine itself.
    let passed = |path: &Path| path.starts_with(&bench.directory) || path.starts_with("/memfd:layers (deleted)");
    assert!(open.iter().all(|path| passed(path)), "{open:?}");
    assert!(mounts.lines().all(|line| line.split(' ').nth(3).unwrap().split(',').any(|word| word == "ro")), "{mounts}");
    assert!(!mounts.contains("/home") && !mounts.contains("/proc"), "{mounts}");
    assert_eq!(wall.ended().await, Ok(()));
    assert_eq!(wall.machine_pid(), 0);
    assert!(!proc.exists());
    bench.finish();
}

#[tokio::test(flavor = "current_thread")]
async fn stdin_reaches_the_command_whole() {
    let bench = Bench::new();
    let key = ProcessKey::init(CONTAINER);
    let create = request(bench.rootfs(1), &["/bin/sha256sum"], true);
    let wall = bench.start().await.unwrap();
    wall.create_container(CONTAINER, create).await.unwrap();
    let output = wall.output(&key).await.unwrap();
    wall.start_process(&key).await.unwrap();

    let chunk = Bytes::from(vec![b'x'; 1 << 20]);
    for _ in 0..64 {
        wall.write_stdin(&key, chunk.clone()).await.unwrap();
    }
    wall.close_stdin(&key).await.unwrap();
    let text = payload(output).await;
    let exit = wall.wait(&key).await;
    wall.stop(STOP_DEADLINE).await.unwrap();

    // head -c 67108864 /dev/zero | tr '\\0' x | sha256sum
    let digest = "e20a69eca39368572e90b9135738a613838f954987a0b44b6220889c171cbb76";
    assert_eq!(text, format!("{digest}  -\n"));
    assert_eq!(exit.exit_code, 0);
    bench.finish();
}

#[tokio::test(flavor = "current_thread")]
async fn a_machine_reaches_the_network_through_its_tap() {
    let mut bench = Bench::new();
    let key = ProcessKey::init(CONTAINER);
    let tap = make_tap("10.99.0.1/24");
    bench.config.network = Some(Network {
        bridge: "none".into(),
        host_interface: "tap0".into(),
        interface: "eth0".into(),
        mac_address: "02:42:0a:63:00:02".into(),
        ipv4_address: "10.99.0.2".into(),
        ipv4_prefix_length: 24,
        ipv4_gateway: "10.99.0.1".into(),
        mtu: 1500,
    });
    let script = "cat /sys/class/net/eth0/address; ping -c 1 -W 5 10.99.0.1 >/dev/null && echo reached";
    let mut create = request(bench.rootfs(1), &["/bin/sh", "-c", script], false);
    for set in ["bounding", "effective", "permitted"] {
        create.spec["process"]["capabilities"][set] = json!(["CAP_NET_RAW"]);
    }
    let wall = bench.start_with(NetworkHandle::Tap(tap)).await.unwrap();
    wall.create_container(CONTAINER, create).await.unwrap();
    let output = wall.output(&key).await.unwrap();
    wall.start_process(&key).await.unwrap();

    let text = payload(output).await;
    wall.stop(STOP_DEADLINE).await.unwrap();

    assert_eq!(text, "02:42:0a:63:00:02\nreached\n");
    bench.finish();
}

#[tokio::test(flavor = "current_thread")]
async fn as_many_layers_as_overlayfs_takes_are_one_disk() {
    let bench = Bench::new();
    let key = ProcessKey::init(CONTAINER);
    let create = request(bench.rootfs(127), &["/bin/sh", "-c", "cat /layer*"], false);
    let wall = bench.start().await.unwrap();
    wall.create_container(CONTAINER, create).await.unwrap();
    let output = wall.output(&key).await.unwrap();
    wall.start_process(&key).await.unwrap();

    let text = payload(output).await;
    let exit = wall.wait(&key).await;
    wall.stop(STOP_DEADLINE).await.unwrap();

    let mut numbers: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=127).collect::<Vec<u32>>());
    assert_eq!(exit.exit_code, 0);
    bench.finish();
}

#[tokio::test(flavor = "current_thread")]
async fn a_machine_that_dies_ends_its_processes_and_says_how() {
    let bench = Bench::new();
    let key = ProcessKey::init(CONTAINER);
    let create = request(bench.rootfs(1), &["/bin/sleep", "1000"], false);
    let wall = bench.start().await.unwrap();
    wall.create_container(CONTAINER, create).await.unwrap();
    let output = wall.output(&key).await.unwrap();
    wall.start_process(&key).await.unwrap();

    let pid = i32::try_from(wall.machine_pid()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    let exit = wall.wait(&key).await;
    let text = payload(output).await;
    let ended = wall.ended().await.unwrap_err();
    let later = wall.kill(&key, 15).await.unwrap_err();

    assert_eq!(text, "");
    assert_eq!((exit.exit_code, exit.error.as_str()), (255, "the machine process was killed (signal 9)"));
    for failure in [ended, later] {
        assert_eq!(failure.code, FailureCode::MachineFailed);
        assert!(failure.message.starts_with(&exit.error), "{failure}");
    }
    wall.stop(STOP_DEADLINE).await.unwrap();
    bench.finish();
}

#[tokio::test(flavor = "current_thread")]
async fn what_was_written_is_on_the_disk_after_a_stop() {
    let bench = Bench::new();
    let key = ProcessKey::init(CONTAINER);
    let mut create = request(bench.rootfs(1), &["/bin/sh", "-c", "echo kept >/root/note"], false);
    create.ephemeral = false;
    let wall = bench.start().await.unwrap();
    wall.create_container(CONTAINER, create).await.unwrap();
    let _output = wall.output(&key).await.unwrap();
    wall.start_process(&key).await.unwrap();

    let exit = wall.wait(&key).await;
    wall.stop(STOP_DEADLINE).await.unwrap();
    let disk = bench.directory.join("scratch.ext4");
    let read = Command::new("debugfs").args(["-R", "cat /upper/root/note"]).arg(&disk).output().unwrap();
    let checked = Command::new("e2fsck").args(["-fn"]).arg(&disk).output().unwrap();

    assert_eq!(exit.exit_code, 0);
    assert_eq!(String::from_utf8_lossy(&read.stdout), "kept\n");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    assert_eq!(wall.ended().await, Ok(()));
    bench.finish();
}

#[tokio::test(flavor = "current_thread")]
async fn a_guest_that_panics_is_a_failure_with_its_last_words() {
    let mut bench = Bench::new();
    bench.machine.kernel_arguments = vec!["rdinit=/nothing".into(), "root=/dev/nothing".into()];
    let wall = bench.start().await.unwrap();

    let failure = wall.create_container(CONTAINER, request(bench.rootfs(1), &["/bin/sh"], false)).await.unwrap_err();
    let ended = wall.ended().await.unwrap_err();

    assert_eq!(failure.code, FailureCode::MachineFailed);
    assert!(failure.message.starts_with("the machine did not start: the guest reset itself"), "{failure}");
    assert!(failure.message.contains("Kernel panic"), "{failure}");
    assert_eq!(ended.message, failure.message);
    bench.finish();
}

#[tokio::test(flavor = "current_thread")]
async fn a_machine_that_cannot_start_says_which_part_is_missing() {
    let mut bench = Bench::new();
    let good = bench.machine.clone();
    let mut messages = Vec::new();

    bench.machine.qemu_path = "/nowhere/qemu".into();
    messages.push(bench.start().await.err().unwrap().message);
    bench.machine = MachineConfig { kernel_path: "/nowhere/kernel".into(), ..good.clone() };
    messages.push(bench.start().await.err().unwrap().message);
    bench.machine = MachineConfig { cpu_model: "no-such-cpu".into(), ..good };
    let wall = bench.start().await.unwrap();
    messages.push(wall.ended().await.unwrap_err().message);

    assert!(messages[0].starts_with("QEMU at /nowhere/qemu: No such file"), "{}", messages[0]);
    assert!(messages[1].starts_with("the guest kernel /nowhere/kernel: No such file"), "{}", messages[1]);
    assert!(messages[2].contains("exited with code 1"), "{}", messages[2]);
    assert!(messages[2].contains("no-such-cpu"), "{}", messages[2]);
    bench.finish();
}
