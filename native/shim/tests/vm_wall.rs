//! Tests on real machines: they want root, QEMU, `mkfs.erofs`, a static busybox, and the images that `make` leaves in build/vm.

use bulkhead_protocol::{
    CreateContainer, Failure, FailureCode, Layer, MachineConfig, MachineTemplate, Network, Rootfs, SandboxConfig,
    WallConfig,
};
use bulkhead_shim::phases::Phases;
use bulkhead_shim::reaper::Reaper;
use bulkhead_shim::vm::{VmWall, make_template};
use bulkhead_shim::wall::{FramedOutput, NetworkHandle, ProcessKey, WallContext};
use bytes::Bytes;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

const CONTAINER: &str = "c1";
const STOP_DEADLINE: Duration = Duration::from_secs(10);

const HIERARCHIES: [&str; 4] =
    ["/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified"];

/// The reaper waits for any child of the process, so only one test at a time may have children.
static TURN: Mutex<()> = Mutex::new(());
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A directory with all that a machine needs; removed, and checked for leftovers, at the end.
struct Bench {
    _turn: MutexGuard<'static, ()>,
    phases: Phases,
    reaper: OnceLock<Reaper>,
    directory: PathBuf,
    config: SandboxConfig,
    machine: MachineConfig,
    images: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("bulkhead-vm-test-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(&name);
        for part in ["run", "state"] {
            fs::create_dir_all(directory.join(part)).unwrap();
        }
        let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/vm").canonicalize().unwrap();
        // Our own kernel where it has been built, else Debian's.
        let own = images.join("kernel/bulkhead/vmlinux");
        let (kernel, initramfs) = if own.exists() && std::env::var_os("BULKHEAD_TEST_DEBIAN_KERNEL").is_none() {
            (own, "initramfs-bulkhead.cpio")
        } else {
            (images.join("kernel/debian/vmlinux"), "initramfs.cpio")
        };
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let machine = MachineConfig {
            driver: "qemu".into(),
            accelerator: "tcg".into(),
            qemu_path: "/usr/bin/qemu-system-x86_64".into(),
            kernel_path: text(&kernel),
            initramfs_path: text(&images.join(initramfs)),
            kernel_arguments: Vec::new(),
            vcpus: 1,
            memory_bytes: 256 << 20,
            cpu_model: "max".into(),
            uid: 61_000 + std::process::id() % 1000 + number,
            cgroup_path: format!("bulkhead-vm-test/{name}"),
            tap_name: "tap0".into(),
            template: None,
        };
        let config = SandboxConfig {
            generation: bulkhead_protocol::GENERATION,
            id: "0".repeat(64),
            runtime_dir: text(&directory.join("run")),
            state_dir: text(&directory.join("state")),
            hostname: "bench".into(),
            network: None,
            ports: Vec::new(),
            pool: None,
            wall: WallConfig::Vm { machine: machine.clone() },
        };
        Self { _turn: turn, phases: Phases::default(), reaper: OnceLock::new(), directory, config, machine, images }
    }

    /// One for all starts: two waiters would take each other's children.
    fn reaper(&self) -> Reaper {
        self.reaper.get_or_init(|| Reaper::start().unwrap()).clone()
    }

    async fn start(&self) -> Result<VmWall, Failure> {
        self.start_with(NetworkHandle::Tap(make_tap("10.99.0.1/24"))).await
    }

    async fn start_with(&self, network: NetworkHandle) -> Result<VmWall, Failure> {
        let context = WallContext { phases: self.phases.clone(), reaper: self.reaper(), network };
        VmWall::start(&self.config, &self.machine, context).await
    }

    /// `count` layers: busybox in the lowest, and a file `/layerN` in each.
    fn rootfs(&self, count: usize) -> Rootfs {
        let layers = (1..=count).map(|number| {
            let tree = self.directory.join(format!("tree{number}"));
            fs::create_dir_all(&tree).unwrap();
            fs::write(tree.join(format!("layer{number}")), format!("{number}\n")).unwrap();
            if number == 1 {
                for name in ["bin", "etc", "proc", "sys", "dev", "tmp", "root"] {
                    fs::create_dir(tree.join(name)).unwrap();
                }
                fs::copy("/bin/busybox", tree.join("bin/busybox")).unwrap();
                for name in ["sh", "cat", "head", "ping", "sha256sum", "sleep"] {
                    std::os::unix::fs::symlink("busybox", tree.join("bin").join(name)).unwrap();
                }
                fs::write(tree.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
                fs::write(tree.join("etc/group"), "root:x:0:\n").unwrap();
            }
            let image = self.directory.join(format!("layer{number}.erofs"));
            let made = Command::new("mkfs.erofs").arg("--quiet").arg(&image).arg(&tree).status().unwrap();
            assert!(made.success());
            let size_bytes = fs::metadata(&image).unwrap().len().next_multiple_of(4096);
            fs::File::options().write(true).open(&image).unwrap().set_len(size_bytes).unwrap();
            Layer { image_path: image.to_str().unwrap().into(), size_bytes, mount_path: String::new() }
        });
        let layers = layers.collect();
        let scratch = self.directory.join("scratch.ext4");
        let template = self.images.join("scratch.ext4");
        let copied = Command::new("cp").arg("--sparse=always").arg(template).arg(&scratch).status().unwrap();
        assert!(copied.success());
        Rootfs { layers, writable_path: scratch.to_str().unwrap().into(), read_only: false }
    }

    /// Nothing of the machine is left on the host.
    fn finish(self) {
        let name = &self.machine.cgroup_path;
        for hierarchy in HIERARCHIES {
            let path = Path::new(hierarchy).join(name);
            assert!(!path.exists(), "{} is left", path.display());
        }
        assert!(!self.directory.join("run/machine-root").exists());
        fs::remove_dir_all(&self.directory).unwrap();
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // After a failed test the machine may be dying still; what is left then is empty, and the next run does not meet it.
        for hierarchy in HIERARCHIES {
            let group = Path::new(hierarchy).join(&self.machine.cgroup_path);
            let _ = fs::remove_dir(&group);
            let _ = fs::remove_dir(group.parent().unwrap());
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn request(rootfs: Rootfs, command: &[&str], stdin: bool) -> CreateContainer {
    let spec = json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": false, "user": { "uid": 0, "gid": 0 }, "args": command, "env": ["PATH=/bin"], "cwd": "/",
            "capabilities": { "bounding": [], "effective": [], "permitted": [], "inheritable": [], "ambient": [] },
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "bench",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"] },
        ],
        "linux": { "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" }, { "type": "cgroup" }] },
    });
    CreateContainer {
        spec,
        rootfs,
        stdin,
        stdin_once: stdin,
        terminal_size: None,
        files: BTreeMap::new(),
        log: None,
        user: String::new(),
        additional_groups: Vec::new(),
        ephemeral: true,
        guest: None,
    }
}

/// The payloads of a framed stream.
async fn payload(mut output: FramedOutput) -> String {
    let mut framed = Vec::new();
    while let Some(chunk) = output.recv().await {
        framed.extend_from_slice(&chunk);
    }
    let mut text = Vec::new();
    let mut rest = framed.as_slice();
    while let [_, _, _, _, a, b, c, d, tail @ ..] = rest {
        let (frame, after) = tail.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        text.extend_from_slice(frame);
        rest = after;
    }
    String::from_utf8(text).unwrap()
}

/// A tap with an address, in a network namespace that ends with this thread.
fn make_tap(address: &str) -> OwnedFd {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    let device = fs::File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    let mut request = [0_u8; 40];
    request[..4].copy_from_slice(b"tap0");
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request[16..18].copy_from_slice(&u16::try_from(flags).unwrap().to_ne_bytes());
    // SAFETY: the request is as long as struct ifreq and lives over the call.
    let made = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, request.as_mut_ptr()) };
    assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
    for arguments in [["addr", "add", address, "dev", "tap0"], ["link", "set", "dev", "tap0", "up"]] {
        assert!(Command::new("ip").args(arguments).status().unwrap().success());
    }
    device.into()
}

fn status_line<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim()
}

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
async fn a_clone_of_a_saved_machine_runs_a_command_and_cannot_write_what_it_was_made_from() {
    let mut bench = Bench::new();
    let key = ProcessKey::init(CONTAINER);
    let path = |name: &str| bench.directory.join(name).to_str().unwrap().to_owned();
    let template = MachineTemplate { ram_path: path("machine.ram"), state_path: path("machine.state") };
    bench.machine.template = Some(template.clone());
    let network = NetworkHandle::Tap(make_tap("10.99.0.1/24"));
    let context = WallContext { phases: Phases::default(), reaper: bench.reaper(), network };
    make_template(&bench.config, &bench.machine, context).await.unwrap();
    let saved = (fs::read(&template.ram_path).unwrap(), fs::read(&template.state_path).unwrap());

    let wall = bench.start().await.unwrap();
    let script = "cat /layer1; head -c 50000000 /dev/zero | sha256sum >/tmp/digest; exit 7";
    let mut create = request(bench.rootfs(1), &["/bin/sh", "-c", script], false);
    create.ephemeral = true;
    wall.create_container(CONTAINER, create).await.unwrap();
    let output = wall.output(&key).await.unwrap();
    wall.start_process(&key).await.unwrap();
    let text = payload(output).await;
    let exit = wall.wait(&key).await;
    let proc = PathBuf::from(format!("/proc/{}", wall.machine_pid()));
    let maps = fs::read_to_string(proc.join("maps")).unwrap();
    let writable: Vec<String> = fs::read_dir(proc.join("fd"))
        .unwrap()
        .filter_map(|entry| entry.ok())
        .filter(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == Path::new(&template.ram_path)))
        .map(|entry| fs::read_to_string(proc.join("fdinfo").join(entry.file_name())).unwrap())
        .filter(|info| !status_line(info, "flags:").ends_with('0'))
        .collect();
    wall.stop(STOP_DEADLINE).await.unwrap();

    assert_eq!((text.as_str(), exit.exit_code), ("1\n", 7));
    let mapped: Vec<&str> = maps.lines().filter(|line| line.ends_with(&template.ram_path)).collect();
    assert!(!mapped.is_empty() && mapped.iter().all(|line| line.contains("p ")), "{mapped:?}");
    assert_eq!(writable, Vec::<String>::new());
    assert!(fs::read(&template.ram_path).unwrap() == saved.0);
    assert!(fs::read(&template.state_path).unwrap() == saved.1);
    bench.finish();
}

#[tokio::test(flavor = "current_thread")]
async fn a_damaged_state_is_a_machine_that_does_not_start() {
    let mut bench = Bench::new();
    let path = |name: &str| bench.directory.join(name).to_str().unwrap().to_owned();
    let template = MachineTemplate { ram_path: path("machine.ram"), state_path: path("machine.state") };
    fs::File::create(&template.ram_path).unwrap().set_len(bench.machine.memory_bytes).unwrap();
    fs::write(&template.state_path, b"no machine at all").unwrap();
    bench.machine.template = Some(template);

    let wall = bench.start().await.unwrap();
    let failure = wall.create_container(CONTAINER, request(bench.rootfs(1), &["/bin/sh"], false)).await.unwrap_err();

    assert_eq!(failure.code, FailureCode::MachineFailed);
    assert!(failure.message.starts_with("the machine did not start:"), "{failure}");
    wall.ended().await.unwrap_err();
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
