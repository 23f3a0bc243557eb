//! What the tests on real machines stand on.

#![allow(dead_code, reason = "no test file uses all of it")]

use bulkhead_protocol::{CreateContainer, Failure, Layer, MachineConfig, Rootfs, SandboxConfig, WallConfig};
use bulkhead_shim::phases::Phases;
use bulkhead_shim::reaper::Reaper;
use bulkhead_shim::vm::VmWall;
use bulkhead_shim::wall::{FramedOutput, NetworkHandle, WallContext};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

pub const CONTAINER: &str = "c1";
pub const STOP_DEADLINE: Duration = Duration::from_secs(10);

pub const HIERARCHIES: [&str; 4] =
    ["/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified"];

/// The reaper waits for any child of the process, so only one test at a time may have children.
static TURN: Mutex<()> = Mutex::new(());
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A directory with all that a machine needs; removed, and checked for leftovers, at the end.
pub struct Bench {
    _turn: MutexGuard<'static, ()>,
    pub phases: Phases,
    pub reaper: OnceLock<Reaper>,
    pub directory: PathBuf,
    pub config: SandboxConfig,
    pub machine: MachineConfig,
    pub images: PathBuf,
}

impl Bench {
    pub fn new() -> Self {
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
    pub fn reaper(&self) -> Reaper {
        self.reaper.get_or_init(|| Reaper::start().unwrap()).clone()
    }

    pub async fn start(&self) -> Result<VmWall, Failure> {
        self.start_with(NetworkHandle::Tap(make_tap("10.99.0.1/24"))).await
    }

    pub async fn start_with(&self, network: NetworkHandle) -> Result<VmWall, Failure> {
        let context = WallContext { phases: self.phases.clone(), reaper: self.reaper(), network };
        VmWall::start(&self.config, &self.machine, context).await
    }

    /// `count` layers: busybox in the lowest, and a file `/layerN` in each.
    pub fn rootfs(&self, count: usize) -> Rootfs {
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
    pub fn finish(self) {
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

pub fn request(rootfs: Rootfs, command: &[&str], stdin: bool) -> CreateContainer {
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
pub async fn payload(mut output: FramedOutput) -> String {
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
pub fn make_tap(address: &str) -> OwnedFd {
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

pub fn status_line<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim()
}
