//! An agent of its own for each test, on this host: a unix socket in place of the console port, a directory with busybox
//! in place of the disks.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

const BUSYBOX: &str = "/usr/bin/busybox";
const APPLETS: [&str; 22] = [
    "sh", "echo", "cat", "id", "ls", "mount", "ps", "hostname", "sleep", "env", "dd", "head", "stty", "tty", "stat",
    "yes", "touch", "kill", "pwd", "true", "wc", "grep",
];

type Sender = http2::SendRequest<UnsyncBoxBody<Bytes, Infallible>>;

/// A running agent; its end is the end of everything that it started.
pub struct Agent {
    sender: Sender,
    connection: JoinHandle<hyper::Result<()>>,
    process: Child,
    directory: PathBuf,
}

impl Agent {
    /// Starts one with a fresh root.
    pub async fn start(test: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("bulkhead-agent-{test}-{}", std::process::id()));
        let root = directory.join("root");
        prepare_root(&root);
        let socket = directory.join("socket");
        let process = Command::new(env!("CARGO_BIN_EXE_bulkhead-agent"))
            .args(["--not-pid-1", "--listen"])
            .arg(&socket)
            .arg("--root-directory")
            .arg(&root)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let (sender, connection) = connect(&socket).await;
        Self { sender, connection, process, directory }
    }

    /// The root directory, as the host sees it.
    pub fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// A further connection in place of the first one.
    pub async fn reconnect(&mut self) {
        // The agent serves one connection at a time.
        self.connection.abort();
        (self.sender, self.connection) = connect(&self.directory.join("socket")).await;
    }

    /// Process id of the agent.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends a request with any body.
    pub async fn send(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Response<Incoming> {
        let request = Request::builder().method(method).uri(format!("http://agent{path}"));
        let request = request.body(Full::new(body.into()).boxed_unsync()).unwrap();
        self.sender.clone().send_request(request).await.unwrap()
    }

    /// Sends JSON and reads JSON.
    pub async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let response = self.send(method, path, body).await;
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// Creates a container that must come to stand.
    pub async fn create(&self, id: &str, request: Value) {
        assert_eq!(self.call("POST", &format!("/v1/containers/{id}"), request).await, (201, Value::Null));
    }

    /// Runs a process of a container (`init` or an exec) to its end; returns exit record, stdout and stderr.
    pub async fn finish(&self, id: &str, process: &str) -> (Value, String, String) {
        let base = format!("/v1/containers/{id}/processes/{process}");
        let (status, answer) = self.call("POST", &format!("{base}/start"), Value::Null).await;
        assert_eq!(status, 200, "{answer}");
        let (_, exit) = self.call("GET", &format!("{base}/wait"), Value::Null).await;
        let framed = self.bytes(&format!("{base}/output?from=0")).await;
        assert_eq!(exit["outputBytes"], framed.len());
        let (stdout, stderr) = split(&framed);
        (exit, stdout, stderr)
    }

    /// A container made, run and waited for.
    pub async fn run(&self, id: &str, request: Value) -> (Value, String, String) {
        self.create(id, request).await;
        self.finish(id, "init").await
    }

    /// A whole body.
    pub async fn bytes(&self, path: &str) -> Bytes {
        self.send("GET", path, "").await.into_body().collect().await.unwrap().to_bytes()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

async fn connect(socket: &Path) -> (Sender, JoinHandle<hyper::Result<()>>) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match UnixStream::connect(socket).await {
            Ok(stream) => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
                return (sender, tokio::spawn(connection));
            }
            Err(error) => assert!(Instant::now() < deadline, "{}: {error}", socket.display()),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn prepare_root(root: &Path) {
    for directory in ["bin", "etc", "tmp", "home/ana"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    std::fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nana:x:1000:1000::/home/ana:/bin/sh\n").unwrap();
    std::fs::write(root.join("etc/group"), "root:x:0:\nwheel:x:10:root,ana\nana:x:1000:\n").unwrap();
    std::fs::write(root.join("etc/plain"), "not a program\n").unwrap();
}

/// The framed stream → stdout and stderr.
pub fn split(framed: &[u8]) -> (String, String) {
    let mut streams = [Vec::new(), Vec::new()];
    let mut rest = framed;
    while let Some((header, tail)) = rest.split_at_checked(8) {
        let length = u32::from_be_bytes(header[4..].try_into().unwrap()) as usize;
        streams[usize::from(header[0]) - 1].extend_from_slice(&tail[..length]);
        rest = &tail[length..];
    }
    let [stdout, stderr] = streams.map(|bytes| String::from_utf8(bytes).unwrap());
    (stdout, stderr)
}

/// A request for a container in the manner of Docker: its usual mounts, namespaces and hidden paths.
pub fn container(args: &[&str]) -> Value {
    json!({
        "rootfs": {"layers": [], "writablePath": ""},
        "spec": {
            "ociVersion": "1.2.0",
            "process": process(args),
            "root": {"path": "rootfs"},
            "hostname": "box",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                 "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                 "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
                {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid"]},
                {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["mode=1777", "size=1m"]}
            ],
            "linux": {
                "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "uts"}, {"type": "ipc"}, {"type": "cgroup"},
                               {"type": "network"}],
                "maskedPaths": ["/proc/version", "/proc/tty", "/proc/not-there"],
                "readonlyPaths": ["/proc/sys"]
            }
        }
    })
}

/// A `process` object.
pub fn process(args: &[&str]) -> Value {
    let capabilities = ["CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_DAC_OVERRIDE"];
    json!({
        "args": args, "cwd": "/", "env": ["PATH=/bin:/usr/bin"], "user": {"uid": 0, "gid": 0},
        "noNewPrivileges": true,
        "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities}
    })
}
