//! A machine process under test: started with its descriptors, watched, and gone with the test.
#![allow(dead_code, reason = "each test program uses its own part")]

pub mod guest;

use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The agent's console port.
pub const AGENT: &str = bulkhead_protocol::AGENT_PORT;

/// Kernel command line of every machine here.
pub const COMMAND_LINE: &str = "console=ttyS0 quiet reboot=t panic=-1 8250.nr_uarts=1 random.trust_cpu=on cryptomgr.notests no_timer_check pci=off i8042.noaux i8042.nokbd";

/// Where `make` leaves kernels and images.
pub fn images() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/vm").canonicalize().unwrap()
}

/// Kernels to try: name, kernel, initramfs. `BULKHEAD_LAB_KERNEL` names one of them.
pub fn kernels() -> Vec<(&'static str, PathBuf, PathBuf)> {
    let images = images();
    let debian = images.join("initramfs.cpio");
    let mut found = vec![
        ("debian-vmlinux", images.join("kernel/debian/vmlinux"), debian.clone()),
        ("debian-bzimage", images.join("kernel/debian/vmlinuz"), debian),
    ];
    let own = images.join("kernel/bulkhead/vmlinux");
    if own.exists() {
        found.push(("bulkhead-vmlinux", own, images.join("initramfs-bulkhead.cpio")));
    }
    if let Ok(name) = std::env::var("BULKHEAD_LAB_KERNEL") {
        found.retain(|(kernel, _, _)| *kernel == name);
    }
    found
}

/// Whether an unmodified kernel can run here; says why not. In the lab it must.
pub fn can_boot() -> bool {
    if std::env::var_os("LAB").is_some() {
        return true;
    }
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let hardware = flags
        .lines()
        .any(|line| line.starts_with("flags") && line.split(' ').any(|flag| flag == "vmx" || flag == "svm"));
    if !hardware {
        eprintln!("skipped: this CPU has neither VMX nor SVM, so no unmodified kernel boots here; `make lab` runs it");
    }
    hardware && Path::new("/dev/kvm").exists()
}

/// A memfd with this content, or this long and empty.
pub fn memory_file(bytes: u64) -> File {
    // SAFETY: a zero-terminated name and no flags: it is to be inherited.
    let fd = unsafe { libc::memfd_create(c"test".as_ptr(), 0) };
    assert!(fd >= 0);
    // SAFETY: just made.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(bytes).unwrap();
    file
}

/// Lets a descriptor be inherited, and gives its number.
pub fn inherit(fd: &impl AsRawFd) -> RawFd {
    // SAFETY: plain flags on an open descriptor.
    assert_eq!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) }, 0);
    fd.as_raw_fd()
}

static NEXT_USER: AtomicU32 = AtomicU32::new(0);

/// What a machine is started with; the files stay open until then.
pub struct Plan {
    pub machine: Value,
    pub start: bool,
    pub jail: bool,
    files: Vec<OwnedFd>,
}

impl Plan {
    /// A machine with so much memory, in no file.
    pub fn new(vcpus: u32, memory_bytes: u64) -> Self {
        let memory = json!({ "mapping": "anonymous" });
        let machine = json!({ "vcpus": vcpus, "memoryBytes": memory_bytes, "memory": memory });
        Self { machine, start: true, jail: true, files: Vec::new() }
    }

    /// Keeps a descriptor for the process; its number.
    pub fn keep(&mut self, fd: impl Into<OwnedFd>) -> RawFd {
        let fd: OwnedFd = fd.into();
        self.files.push(fd);
        inherit(self.files.last().unwrap())
    }

    /// Opens a file for the process.
    pub fn open(&mut self, path: &Path, write: bool) -> RawFd {
        let file = File::options()
            .read(true)
            .write(write)
            .open(path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        self.keep(file)
    }

    /// Boots this kernel.
    pub fn kernel(mut self, kernel: &Path, initramfs: &Path, arguments: &str) -> Self {
        let (kernel, initramfs) = (self.open(kernel, false), self.open(initramfs, false));
        self.machine["kernel"] = json!({ "fd": kernel });
        self.machine["initramfs"] = json!({ "fd": initramfs });
        self.machine["commandLine"] = json!(format!("{COMMAND_LINE} {arguments}"));
        self
    }

    pub fn disk(mut self, disk: Value) -> Self {
        let disks = self.machine.as_object_mut().unwrap().entry("disks").or_insert_with(|| json!([]));
        disks.as_array_mut().unwrap().push(disk);
        self
    }
}

/// A machine process.
pub struct Process {
    child: Child,
    pub monitor: BufReader<UnixStream>,
    pub agent: UnixStream,
    serial: File,
    stderr: File,
    next_id: u64,
}

impl Process {
    /// Starts the process. Serial port, agent port and monitor are added to the plan.
    pub fn start(mut plan: Plan) -> Self {
        let (serial, stderr) = (memory_file(0), memory_file(0));
        let (agent, agent_end) = UnixStream::pair().unwrap();
        let (monitor, monitor_end) = UnixStream::pair().unwrap();
        let for_process = plan.keep(serial.try_clone().unwrap());
        plan.machine["serial"] = json!({ "fd": for_process });
        let agent_fd = plan.keep(agent_end);
        plan.machine["ports"] = json!([{ "name": AGENT, "fd": agent_fd }, { "name": bulkhead_protocol::FILES_PORT }]);
        let monitor_fd = plan.keep(monitor_end);
        let mut config =
            json!({ "machine": plan.machine.clone(), "monitor": { "fd": monitor_fd }, "start": plan.start });
        if plan.jail {
            // No two machines have the same user: the limit of threads is the user's.
            let uid = 64_000 + NEXT_USER.fetch_add(1, Ordering::Relaxed);
            config["jail"] = json!({ "uid": uid, "gid": uid });
        }
        let mut text = memory_file(0);
        text.write_all(config.to_string().as_bytes()).unwrap();
        text.seek(SeekFrom::Start(0)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_bulkhead-vmm"))
            .arg(inherit(&text).to_string())
            .stderr(stderr.try_clone().unwrap())
            .spawn()
            .unwrap();
        monitor.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { child, monitor: BufReader::new(monitor), agent, serial, stderr, next_id: 1 }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the process itself said.
    pub fn stderr(&self) -> String {
        content(&self.stderr)
    }

    /// What the serial port said, and the process.
    pub fn serial(&self) -> String {
        format!("{}--- stderr\n{}", content(&self.serial), self.stderr())
    }

    /// Asks the monitor, and takes its answer.
    pub fn ask(&mut self, mut request: Value) -> Value {
        request["id"] = json!(self.next_id);
        self.next_id += 1;
        self.monitor.get_mut().write_all(format!("{request}\n").as_bytes()).unwrap();
        self.answer()
    }

    /// The next answer; events before it are passed over.
    fn answer(&mut self) -> Value {
        let id = json!(self.next_id - 1);
        let answer = self.until(|line| !line["id"].is_null() || !line["error"].is_null());
        assert_eq!(answer["id"], id, "{answer}");
        answer
    }

    /// The next line like this.
    pub fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.line();
            if wanted(&line) {
                return line;
            }
        }
    }

    /// Waits until the guest has the agent's port open.
    pub fn wait_for_agent_port(&mut self) {
        self.until(|line| {
            let ports = line["ports"].as_array().into_iter().flatten();
            ports.into_iter().any(|port| port["name"] == AGENT && port["guestOpen"] == true)
        });
    }

    /// Every device still works.
    pub fn assert_no_device_broken(&mut self) {
        let answer = self.ask(json!({ "do": "query" }));
        let devices = answer["return"]["devices"].as_array().unwrap();
        assert!(devices.iter().all(|device| device["broken"].is_null()), "{answer}");
    }

    /// Ends the machine by its monitor.
    pub fn stop(&mut self) {
        self.ask(json!({ "do": "stop" }));
        let end = self.until(|line| line["event"] == "ended");
        assert_eq!(end["reason"], "stopped");
        assert_eq!(self.wait(Duration::from_secs(20)).code(), Some(0));
    }

    /// Asks with a descriptor.
    pub fn ask_with(&mut self, mut request: Value, fds: &[RawFd]) -> Value {
        request["id"] = json!(self.next_id);
        self.next_id += 1;
        send_with(self.monitor.get_ref(), format!("{request}\n").as_bytes(), fds);
        self.answer()
    }

    /// The monitor's next line.
    pub fn line(&mut self) -> Value {
        let mut line = String::new();
        self.monitor.read_line(&mut line).unwrap_or_else(|error| panic!("monitor: {error}\n{}", self.serial()));
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("monitor said {line:?}\n{}", self.serial()))
    }

    /// Opens a session with the agent: it answers the preamble once it serves.
    pub fn open_session(&mut self, deadline: Duration) {
        let preamble = *b"BULKHEAD12345678";
        self.agent.set_read_timeout(Some(deadline)).unwrap();
        self.agent.write_all(&preamble).unwrap();
        // What comes before the answer is left over from a session that broke off.
        let mut seen = Vec::new();
        // Byte by byte: what comes after it is HTTP/2.
        let mut piece = [0; 1];
        while !seen.ends_with(&preamble) {
            match self.agent.read(&mut piece) {
                Ok(count) if count > 0 && seen.len() < 1 << 20 => seen.extend_from_slice(&piece[..count]),
                other => {
                    let state = self.ask(json!({ "do": "query" }));
                    panic!("no agent after {deadline:?}: {other:?}\n{state}\n--- serial\n{}", self.serial())
                }
            }
        }
        self.agent.set_read_timeout(None).unwrap();
    }

    /// Waits for its end.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let until = Instant::now() + deadline;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(!status.core_dumped());
                return status;
            }
            assert!(Instant::now() < until, "the machine is still there after {deadline:?}\n{}", self.serial());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Resident memory that is not the guest's, bytes: every mapping but those of the memory file, which there must be.
    pub fn overhead_bytes(&self) -> u64 {
        let maps = std::fs::read_to_string(format!("/proc/{}/smaps", self.pid())).unwrap();
        let (mut guest, mut sum) = (false, 0);
        for line in maps.lines() {
            if line.contains("memfd:test") || line.contains("guest-ram") {
                guest = true;
            } else if line.split_once(' ').is_some_and(|(first, _)| first.contains('-') && !first.ends_with(':')) {
                guest = false;
            }
            if !guest && let Some(rest) = line.strip_prefix("Rss:") {
                sum += rest.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024;
            }
        }
        sum
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn content(file: &File) -> String {
    let (mut file, mut bytes) = (file, Vec::new());
    file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut bytes)).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sends bytes with descriptors.
pub fn send_with(socket: &UnixStream, bytes: &[u8], fds: &[RawFd]) {
    let mut control = vec![0_u64; 2 + fds.len().div_ceil(2) + 1];
    let vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: a zeroed header, filled below with buffers that live through the call.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = (&raw const vector).cast_mut();
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of_val(fds) as u32) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of_val(fds) as u32) as usize;
        std::ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), libc::CMSG_DATA(header), size_of_val(fds));
        assert_eq!(libc::sendmsg(socket.as_raw_fd(), &raw const message, 0), bytes.len() as isize);
    }
}
