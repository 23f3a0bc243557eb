//! A real shim process with a real config, a busybox root, and an HTTP client. Everything is taken away on drop.
#![allow(dead_code)]

use bulkhead_protocol::{Exit, Failure, SandboxStatus, Started};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Directories of one test, and what must be gone at its end.
pub struct Scratch {
    pub id: String,
    pub path: PathBuf,
}

impl Scratch {
    pub fn new() -> Self {
        // Unlike among the first twelve digits, which name the cgroup and the bundle.
        let id = format!("{:06x}{:06x}{:052}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed), 0);
        let path = std::env::temp_dir().join(format!("bs-{}", &id[..12]));
        let _ = fs::remove_dir_all(&path);
        for name in ["run", "state", "writable", "layer"] {
            fs::create_dir_all(path.join(name)).unwrap();
        }
        Self { id, path }
    }

    pub fn text(&self, name: &str) -> String {
        self.path.join(name).to_str().unwrap().to_owned()
    }

    /// A busybox root as a plain directory, which overlay takes as it takes an EROFS mount.
    pub fn busybox_layer(&self) -> String {
        let layer = self.path.join("layer");
        for name in ["bin", "etc", "proc", "sys", "dev", "tmp", "root"] {
            fs::create_dir_all(layer.join(name)).unwrap();
        }
        fs::copy("/bin/busybox", layer.join("bin/busybox")).unwrap();
        for applet in [
            "sh",
            "cat",
            "echo",
            "sleep",
            "sha256sum",
            "stty",
            "id",
            "head",
            "yes",
            "nc",
            "httpd",
            "wget",
            "true",
            "kill",
            "dd",
            "ip",
            "hostname",
            "seq",
            "tty",
            "mount",
            "tail",
            "ls",
            "touch",
            "grep",
        ] {
            let _ = std::os::unix::fs::symlink("busybox", layer.join("bin").join(applet));
        }
        fs::write(layer.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:web:/home/web:/bin/sh\n")
            .unwrap();
        fs::write(layer.join("etc/group"), "root:x:0:\nweb:x:1001:\nstaff:x:50:web\n").unwrap();
        self.text("layer")
    }

    pub fn config(&self) -> Value {
        json!({
            "generation": 1, "id": self.id, "runtimeDir": self.text("run"), "stateDir": self.text("state"),
            "hostname": "box", "wall": "os", "os": { "runcPath": "runc" },
        })
    }

    pub fn spec(&self, arguments: &[&str]) -> Value {
        let mount = |destination: &str, kind: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
        let capabilities = json!(["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_NET_BIND_SERVICE"]);
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "args": arguments, "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 },
                "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            },
            "root": { "path": "ignored" },
            "hostname": "box",
            "mounts": [
                mount("/proc", "proc", &[]),
                mount("/dev", "tmpfs", &["nosuid", "mode=755"]),
                mount("/dev/pts", "devpts", &["newinstance", "ptmxmode=0666", "mode=0620"]),
            ],
            "linux": {
                "cgroupsPath": format!("/bulkhead-shim-test-{}", &self.id[..12]),
                "namespaces": [{ "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "network" }],
            },
        })
    }

    pub fn container(&self, arguments: &[&str]) -> Value {
        json!({
            "spec": self.spec(arguments),
            "rootfs": {
                "layers": [{ "imagePath": "", "sizeBytes": 0, "mountPath": self.busybox_layer() }],
                "writablePath": self.text("writable"),
            },
            "files": { "/etc/hostname": "box\n" },
            "log": { "driver": "json-file", "path": self.text("state/container.log"), "maxSizeBytes": 0, "maxFiles": 1 },
        })
    }

    pub fn log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path.join("state/container.log")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn logged_text(&self) -> String {
        self.log().iter().map(|entry| entry["log"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "shim log of {}:\n{}",
                self.id,
                fs::read_to_string(self.path.join("shim.log")).unwrap_or_default()
            );
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A running shim.
pub struct Shim {
    child: Child,
    socket: PathBuf,
    pub spawned: Instant,
    ended: bool,
}

impl Shim {
    pub fn start(scratch: &Scratch, config: &Value) -> Result<Self, Failure> {
        // Close-on-exec: the shim of another test must not hold the end of this one's config open.
        let pipe = || nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let (config_read, config_write) = pipe();
        let (ready_read, ready_write) = pipe();
        let log = fs::File::create(scratch.path.join("shim.log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead-shim"));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let ends = [config_read.as_raw_fd(), ready_write.as_raw_fd()];
        // SAFETY: only dup2, fcntl and close, which are async-signal-safe. The ends are moved out of the way first, because
        // they may be 3 and 4 themselves.
        unsafe {
            command.pre_exec(move || {
                let moved = ends.map(|end| libc::fcntl(end, libc::F_DUPFD, 10));
                for (from, to) in moved.into_iter().zip([3, 4]) {
                    if libc::dup2(from, to) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                    libc::close(from);
                }
                Ok(())
            });
        }
        let spawned = Instant::now();
        let child = command.spawn().unwrap();
        drop((config_read, ready_write));
        fs::File::from(config_write).write_all(config.to_string().as_bytes()).unwrap();
        let line = read_line(ready_read);
        let mut shim = Self { child, socket: scratch.path.join("run/shim.sock"), spawned, ended: false };
        if line == "{\"ready\":true}\n" {
            return Ok(shim);
        }
        shim.wait_for_end();
        Err(serde_json::from_str(&line).unwrap())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub async fn connect(&self) -> http1::SendRequest<Full<Bytes>> {
        self.connect_with().await
    }

    pub async fn connect_with<B>(&self) -> http1::SendRequest<B>
    where
        B: hyper::body::Body<Data = Bytes, Error = std::convert::Infallible> + Send + 'static,
    {
        let stream = tokio::net::UnixStream::connect(&self.socket).await.unwrap();
        let (sender, connection) = http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    pub async fn open(&self, method: &str, path: &str, body: Bytes) -> http::Response<Incoming> {
        let request = Request::builder().method(method).uri(path).header("host", "shim").body(Full::new(body)).unwrap();
        self.connect().await.send_request(request).await.unwrap()
    }

    pub async fn request(&self, method: &str, path: &str, body: &Value) -> Result<Bytes, Failure> {
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let response = self.open(method, path, body).await;
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        if status.is_success() { Ok(body) } else { Err(serde_json::from_slice(&body).unwrap()) }
    }

    /// Sends a whole request; dropping what it returns hangs up without having read the answer.
    pub fn post_only(&self, path: &str, body: &Value) -> std::os::unix::net::UnixStream {
        let body = body.to_string();
        let head = format!("POST {path} HTTP/1.1\r\nhost: shim\r\ncontent-length: {}\r\n\r\n", body.len());
        let mut stream = std::os::unix::net::UnixStream::connect(&self.socket).unwrap();
        stream.write_all((head + &body).as_bytes()).unwrap();
        stream
    }

    pub async fn create(&self, body: &Value) -> Result<Bytes, Failure> {
        self.request("POST", "/v1/containers/c1", body).await
    }

    pub async fn post(&self, process: &str, action: &str, body: Value) -> Result<Bytes, Failure> {
        self.request("POST", &format!("/v1/containers/c1/processes/{process}/{action}"), &body).await
    }

    pub async fn start_process(&self, process: &str) -> Started {
        serde_json::from_slice(&self.post(process, "start", Value::Null).await.unwrap()).unwrap()
    }

    pub async fn wait(&self, process: &str) -> Exit {
        let path = format!("/v1/containers/c1/processes/{process}/wait");
        serde_json::from_slice(&self.request("GET", &path, &Value::Null).await.unwrap()).unwrap()
    }

    pub async fn output(&self, process: &str, query: &str) -> http::Response<Incoming> {
        let path = format!("/v1/containers/c1/processes/{process}/output?{query}");
        let response = self.open("GET", &path, Bytes::new()).await;
        assert_eq!(response.status(), StatusCode::OK);
        response
    }

    pub async fn status(&self) -> SandboxStatus {
        serde_json::from_slice(&self.request("GET", "/v1/sandbox", &Value::Null).await.unwrap()).unwrap()
    }

    /// Until the shim itself has closed the sandbox down.
    pub async fn stopped(&self) -> SandboxStatus {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let status = self.status().await;
            if status.state == "stopped" {
                return status;
            }
            assert!(Instant::now() < deadline, "the sandbox does not stop: {status:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid().cast_signed()), signal).unwrap();
    }

    pub fn wait_for_end(&mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.ended = true;
                return status;
            }
            assert!(Instant::now() < deadline, "the shim does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops, releases, and sees the shim out.
    pub async fn finish(mut self) {
        self.request("POST", "/v1/sandbox/stop", &json!({ "deadlineMs": 0 })).await.unwrap();
        self.request("POST", "/v1/sandbox/release", &Value::Null).await.unwrap();
        self.wait_for_end();
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        if !self.ended {
            self.signal(nix::sys::signal::SIGTERM);
            self.wait_for_end();
        }
    }
}

fn read_line(descriptor: OwnedFd) -> String {
    let mut line = String::new();
    BufReader::new(fs::File::from(descriptor)).read_line(&mut line).unwrap();
    line
}

pub async fn all(response: http::Response<Incoming>) -> Vec<u8> {
    response.into_body().collect().await.unwrap().to_bytes().to_vec()
}

/// The payload of each stream of a framed stream.
pub fn demultiplex(mut framed: &[u8]) -> (String, String) {
    let mut streams = [Vec::new(), Vec::new()];
    while !framed.is_empty() {
        let length = u32::from_be_bytes(framed[4..8].try_into().unwrap()) as usize;
        streams[usize::from(framed[0]) - 1].extend_from_slice(&framed[8..8 + length]);
        framed = &framed[8 + length..];
    }
    let [stdout, stderr] = streams.map(|stream| String::from_utf8(stream).unwrap());
    (stdout, stderr)
}

/// A network namespace for the calling thread, with a bridge that has the gateway's address.
pub fn enter_bridged_namespace() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    for line in
        ["link set lo up", "link add br-test type bridge", "addr add 10.99.0.1/24 dev br-test", "link set br-test up"]
    {
        assert!(Command::new("ip").args(line.split(' ')).status().unwrap().success());
    }
}

pub fn network() -> Value {
    json!({
        "bridge": "br-test", "hostInterface": "bt-veth0", "interface": "eth0", "macAddress": "02:42:0a:63:00:02",
        "ipv4Address": "10.99.0.2", "ipv4PrefixLength": 24, "ipv4Gateway": "10.99.0.1", "mtu": 1400,
    })
}

pub fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}
