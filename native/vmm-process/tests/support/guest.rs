//! A container in a machine under test, driven through the agent's protocol.

use super::{Plan, images};
use bulkhead_protocol::{CreateContainer, Exit, GuestIdentity, Layer, Network, Rootfs};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::{Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory of its own for each test.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bulkhead-vmm-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An image of two layers: busybox, and a file of 8 MiB with a pattern in it.
pub struct Image {
    pub layers: Vec<Layer>,
    pub scratch: PathBuf,
}

fn erofs(directory: &Path, name: &str) -> Layer {
    let image = directory.join(format!("{name}.erofs"));
    run(Command::new("mkfs.erofs").arg("--quiet").arg(&image).arg(directory.join(name)));
    let size_bytes = fs::metadata(&image).unwrap().len().next_multiple_of(4096);
    File::options().write(true).open(&image).unwrap().set_len(size_bytes).unwrap();
    Layer { image_path: image.to_str().unwrap().into(), size_bytes, mount_path: String::new() }
}

impl Image {
    pub fn build(directory: &Path) -> Self {
        let base = directory.join("base");
        for part in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
            fs::create_dir_all(base.join(part)).unwrap();
        }
        fs::copy("/bin/busybox", base.join("bin/busybox")).unwrap();
        fs::write(base.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
        for applet in [
            "sh", "cat", "dd", "md5sum", "ping", "sleep", "ip", "sync", "uname", "wc", "echo", "nc", "grep", "mv",
            "ls", "true", "fstrim",
        ] {
            std::os::unix::fs::symlink("busybox", base.join("bin").join(applet)).unwrap();
        }
        fs::create_dir_all(directory.join("data")).unwrap();
        let pattern: Vec<u8> =
            (0..1_u32 << 21).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        fs::write(directory.join("data/pattern"), pattern).unwrap();
        let scratch = directory.join("scratch.ext4");
        let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vm-images/scratch/build-scratch");
        run(Command::new(build).arg("--output").arg(&scratch).arg("--size-gib").arg("1"));
        Self { layers: vec![erofs(directory, "base"), erofs(directory, "data")], scratch }
    }

    /// MD5 of the file in the upper layer.
    pub fn pattern_digest(&self) -> String {
        let path = Path::new(&self.scratch).parent().unwrap().join("data/pattern");
        let output = Command::new("md5sum").arg(path).output().unwrap().stdout;
        String::from_utf8(output).unwrap().split(' ').next().unwrap().to_owned()
    }

    /// Both disks of the image's container.
    pub fn disks(&self, mut plan: Plan) -> Plan {
        let mut extents = Vec::new();
        for layer in &self.layers {
            let fd = plan.open(Path::new(&layer.image_path), false);
            extents.push(json!({ "fd": fd, "bytes": layer.size_bytes }));
        }
        let scratch = plan.open(&self.scratch, true);
        plan.disk(json!({ "serial": "layers", "backend": { "kind": "extents", "extents": extents } }))
            .disk(json!({ "serial": "scratch", "backend": { "kind": "raw", "fd": scratch } }))
    }

    pub fn rootfs(&self) -> Rootfs {
        Rootfs { layers: self.layers.clone(), writable_path: String::new(), read_only: false }
    }
}

/// The kernel that tests boot where any does: our own if it is built, for it is quicker.
pub fn quick_kernel() -> (PathBuf, PathBuf) {
    let own = images().join("kernel/bulkhead/vmlinux");
    if own.exists() {
        (own, images().join("initramfs-bulkhead.cpio"))
    } else {
        (images().join("kernel/debian/vmlinux"), images().join("initramfs.cpio"))
    }
}

/// A session with the agent.
pub struct Guest(SendRequest<Full<Bytes>>);

impl Guest {
    /// HTTP/2 on the stream whose preamble was answered.
    pub async fn connect(stream: &UnixStream) -> Self {
        let stream = stream.try_clone().unwrap();
        stream.set_nonblocking(true).unwrap();
        let stream = tokio::net::UnixStream::from_std(stream).unwrap();
        let (sender, connection) = Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    pub async fn call(&self, method: Method, path: &str, body: Value) -> Bytes {
        let bytes = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request =
            Request::builder().method(method).uri(format!("http://agent{path}")).body(Full::new(bytes)).unwrap();
        let answer = self.0.clone().send_request(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(status.is_success(), "{path}: {status} {}", String::from_utf8_lossy(&body));
        body
    }

    pub async fn create_container(&self, id: &str, image: &Image, command: &[&str], network: Option<Network>) {
        let create = serde_json::to_value(create(image, command, network)).unwrap();
        self.call(Method::POST, &format!("/v1/containers/{id}"), create).await;
    }

    pub async fn start(&self, id: &str) {
        self.call(Method::POST, &format!("/v1/containers/{id}/processes/init/start"), Value::Null).await;
    }

    /// Runs a further process in a container; its output.
    pub async fn exec(&self, container: &str, name: &str, script: &str) -> String {
        let path = format!("/v1/containers/{container}/processes/{name}");
        let capabilities = json!({ "bounding": [], "effective": [], "permitted": [], "inheritable": [] });
        let process = json!({
            "terminal": false, "user": { "uid": 0, "gid": 0 }, "args": ["/bin/sh", "-c", script], "env": ["PATH=/bin"], "cwd": "/",
            "capabilities": capabilities,
        });
        self.call(Method::POST, &path, json!({ "process": process })).await;
        let output = format!("{path}/output?from=0");
        let start = format!("{path}/start");
        let (output, _) =
            tokio::join!(self.call(Method::GET, &output, Value::Null), self.call(Method::POST, &start, Value::Null));
        payload(&output)
    }

    /// Runs a container to its end: exit code and output.
    pub async fn run_container(
        &self,
        id: &str,
        image: &Image,
        command: &[&str],
        network: Option<Network>,
    ) -> (i32, String) {
        self.create_container(id, image, command, network).await;
        let process = format!("/v1/containers/{id}/processes/init");
        let path = format!("{process}/output?from=0");
        let (output, ()) = tokio::join!(self.call(Method::GET, &path, Value::Null), self.start(id));
        let exit = self.call(Method::GET, &format!("{process}/wait"), Value::Null).await;
        let exit: Exit = serde_json::from_slice(&exit).unwrap();
        (exit.exit_code as i32, payload(&output))
    }
}

fn payload(mut framed: &[u8]) -> String {
    let mut text = Vec::new();
    while let [_, _, _, _, a, b, c, d, tail @ ..] = framed {
        let (frame, rest) = tail.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        text.extend_from_slice(frame);
        framed = rest;
    }
    String::from_utf8(text).unwrap()
}

fn create(image: &Image, command: &[&str], network: Option<Network>) -> CreateContainer {
    let capabilities = json!(["CAP_NET_RAW", "CAP_SYS_ADMIN"]);
    let spec = json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": false, "user": { "uid": 0, "gid": 0 }, "args": command, "env": ["PATH=/bin"], "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities, "inheritable": [], "ambient": [] },
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "test",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"] },
        ],
        "linux": { "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" }, { "type": "cgroup" }] },
    });
    let guest = GuestIdentity {
        realtime_ns: 0,
        entropy: "5a".repeat(64),
        hostname: "test".into(),
        machine_id: String::new(),
        network,
    };
    CreateContainer {
        spec,
        rootfs: image.rootfs(),
        stdin: false,
        stdin_once: false,
        terminal_size: None,
        files: BTreeMap::new(),
        log: None,
        user: String::new(),
        additional_groups: Vec::new(),
        ephemeral: false,
        guest: Some(guest),
    }
}
