//! The monitor: one JSON value a line, `{"id":1,"do":"query",…}` → `{"id":1,"return":…}` or `{"id":1,"error":"…"}`. Descriptors that a
//! request needs come with its line (SCM_RIGHTS). Events are lines too: a machine that ends is told as
//! `{"event":"ended","reason":"…"}`, a console port that the guest opens or closes as `{"event":"ports","ports":[…]}`.
//!
//! | `do` | with | effect |
//! |---|---|---|
//! | `start`, `resume` | | it runs |
//! | `pause` | | it stops where it is |
//! | `stop` | | it ends, as if its power were cut |
//! | `query` | | state, vCPUs, memory, devices |
//! | `resize-block` | `device` | the size of its file is read again |
//! | `attach-block` | `device`, `backend` (its `fd`s count the line's descriptors from 0) | an empty disk gets its bytes |
//! | `connect-port` | `port`, one descriptor | a console port's end on the host |
//! | `limit` | `device`, `bytesPerSecond`, `operationsPerSecond` | new limits; 0 is none |
//! | `save` | one descriptor | the paused machine's state is written there |

use bulkhead_vmm::config::take_backend;
use bulkhead_vmm::spec::BackendSpec;
use bulkhead_vmm::virtio::device::Control;
use bulkhead_vmm::{Error, Machine, state};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Longest line: a disk of 4096 parts.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Descriptors that one message carries (SCM_MAX_FD).
const DESCRIPTORS_MAX: usize = 253;

#[derive(Debug, Deserialize)]
struct Request {
    #[serde(default)]
    id: Value,
    #[serde(flatten)]
    verb: Verb,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", rename_all_fields = "camelCase")]
enum Verb {
    Start,
    Resume,
    Pause,
    Stop,
    Query,
    ResizeBlock { device: String },
    AttachBlock { device: String, backend: BackendSpec },
    ConnectPort { port: String },
    Limit { device: String, bytes_per_second: u64, operations_per_second: u64 },
    Save,
}

/// What the monitor wants of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing.
    None,
    /// The machine is to end.
    Stop,
    /// The peer is gone.
    Gone,
}

/// A connected monitor.
pub struct Monitor {
    socket: OwnedFd,
    line: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl Monitor {
    /// On a connected stream socket.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, line: Vec::new(), descriptors: VecDeque::new() }
    }

    /// Its descriptor, to wait for.
    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Reads what there is and answers every whole line.
    pub fn serve(&mut self, machine: &mut Machine) -> Wish {
        let mut bytes = [0; 16 << 10];
        let count = match receive(&self.socket, &mut bytes, &mut self.descriptors) {
            Ok(0) => return Wish::Gone,
            Ok(count) => count,
            Err(cause) if matches!(cause.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
                return Wish::None;
            }
            Err(_) => return Wish::Gone,
        };
        self.line.extend_from_slice(&bytes[..count]);
        let mut wish = Wish::None;
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            match self.answer(&line, machine) {
                Wish::None => {}
                other => wish = other,
            }
        }
        // A peer that never ends its line, or sends descriptors that nothing asks for, is none.
        if self.line.len() > LINE_BYTES_MAX || self.descriptors.len() > DESCRIPTORS_MAX { Wish::Gone } else { wish }
    }

    fn answer(&mut self, line: &[u8], machine: &mut Machine) -> Wish {
        let request: Request = match serde_json::from_slice(line) {
            Ok(request) => request,
            Err(cause) => {
                self.descriptors.clear();
                return self.send(&json!({ "id": null, "error": format!("the request is not understood: {cause}") }));
            }
        };
        if matches!(request.verb, Verb::Stop) {
            self.send(&json!({ "id": request.id, "return": {} }));
            return Wish::Stop;
        }
        let answer = match execute(request.verb, &mut self.descriptors, machine) {
            Ok(value) => json!({ "id": request.id, "return": value }),
            Err(error) => json!({ "id": request.id, "error": error.to_string() }),
        };
        // Those of this request that were not used are not the next one's.
        self.descriptors.clear();
        self.send(&answer)
    }

    /// Tells that the guest opened or closed a console port.
    pub fn tell_ports(&self, machine: &Machine) {
        let console = machine.describe_devices().into_iter().find(|device| device["name"] == "console");
        if let Some(console) = console {
            self.send(&json!({ "event": "ports", "ports": console["own"]["ports"] }));
        }
    }

    /// Tells that the machine has ended.
    pub fn tell_end(&self, reason: &str, detail: Option<&str>) {
        self.send(&json!({ "event": "ended", "reason": reason, "detail": detail }));
    }

    fn send(&self, value: &Value) -> Wish {
        let mut text = value.to_string();
        text.push('\n');
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let vector = libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() };
            // SAFETY: a zeroed message header is one without address and control data.
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            message.msg_iov = (&raw const vector).cast_mut();
            message.msg_iovlen = 1;
            // SAFETY: the header and its one vector live through the call.
            let count = unsafe { libc::sendmsg(self.fd(), &raw const message, libc::MSG_NOSIGNAL) };
            match usize::try_from(count) {
                Ok(count) => rest = &rest[count..],
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Wish::Gone,
            }
        }
        Wish::None
    }
}

fn execute(verb: Verb, descriptors: &mut VecDeque<OwnedFd>, machine: &mut Machine) -> bulkhead_vmm::Result<Value> {
    let mut one = || {
        descriptors
            .pop_front()
            .ok_or_else(|| Error::Config("the request came without its descriptor (SCM_RIGHTS)".into()))
    };
    match verb {
        Verb::Start | Verb::Resume => machine.resume(),
        Verb::Pause => machine.pause(),
        Verb::Stop => {}
        Verb::Query => return Ok(query(machine)),
        Verb::ResizeBlock { device } => machine.control(&device, Control::Resize)?,
        Verb::Limit { device, bytes_per_second, operations_per_second } => {
            let limits = Control::Limit { bytes: bytes_per_second, operations: operations_per_second };
            machine.control(&device, limits)?;
        }
        Verb::ConnectPort { port } => {
            let stream = one()?;
            machine.control("console", Control::Connect { port, stream })?;
        }
        Verb::AttachBlock { device, backend } => {
            let mut files: Vec<Option<File>> = descriptors.drain(..).map(|fd| Some(File::from(fd))).collect();
            let mut take = |number: RawFd| {
                let file = usize::try_from(number).ok().and_then(|number| files.get_mut(number)).and_then(Option::take);
                file.ok_or_else(|| Error::Config(format!("the request came without a descriptor number {number}")))
            };
            let backend = take_backend(backend, &device, &mut take)?;
            machine.control(&device, Control::Attach(backend))?;
        }
        Verb::Save => {
            let mut target = File::from(one()?);
            let state = machine.save()?;
            state::write(&state, &mut target)?;
        }
    }
    Ok(json!({}))
}

fn query(machine: &Machine) -> Value {
    json!({
        "state": if machine.is_running() { "running" } else { "paused" },
        "vcpus": machine.vcpu_count(),
        "memoryBytes": machine.memory_bytes(),
        "devices": machine.describe_devices(),
    })
}

/// One read, with the descriptors that come with it.
fn receive(socket: &OwnedFd, bytes: &mut [u8], descriptors: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
    const FD_BYTES: usize = size_of::<RawFd>();
    let mut control = [0_u64; (16 + DESCRIPTORS_MAX * FD_BYTES).div_ceil(8)];
    let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: a zeroed message header is a valid one; its parts are set below.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: all that the header points to lives through the call and is as long as it says.
    let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has filled the control buffer as far as the header says now.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: a header within the control buffer.
        let (level, kind, length) = unsafe { ((*header).cmsg_level, (*header).cmsg_type, (*header).cmsg_len) };
        if level == libc::SOL_SOCKET && kind == libc::SCM_RIGHTS {
            // SAFETY: the data of this header are whole descriptors, `length` bytes with the header.
            let data = unsafe { libc::CMSG_DATA(header) };
            // SAFETY: arithmetic on a length.
            let payload = length - unsafe { libc::CMSG_LEN(0) } as usize;
            for index in 0..payload / FD_BYTES {
                // SAFETY: within the data; they need not be aligned. Each descriptor is new and this process's own.
                let fd = unsafe { OwnedFd::from_raw_fd(data.add(index * FD_BYTES).cast::<RawFd>().read_unaligned()) };
                descriptors.push_back(fd);
            }
        }
        // SAFETY: as above.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    Ok(count)
}
